package store

import (
	"container/list"
	"sync"
	"sync/atomic"
)

// Cache keeps the most recently used rendered pages.
type Cache struct {
	mu      sync.Mutex
	limit   int
	order   *list.List
	entries map[string]*list.Element
	hits    uint64
	misses  uint64
}

type entry struct {
	key  string
	body []byte
}

// NewCache returns a cache of at most limit entries.
func NewCache(limit int) *Cache {
	return &Cache{limit: limit, order: list.New(), entries: make(map[string]*list.Element)}
}

// Fetch returns the cached body of key, made by render where it was missing.
func (c *Cache) Fetch(key string, render func() []byte) []byte {
	c.mu.Lock()
	if element, ok := c.entries[key]; ok {
		c.order.MoveToFront(element)
		body := element.Value.(*entry).body
		c.mu.Unlock()
		atomic.AddUint64(&c.hits, 1)
		return body
	}
	c.mu.Unlock()
	atomic.AddUint64(&c.misses, 1)
	body := render()
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.entries[key]; !ok {
		c.entries[key] = c.order.PushFront(&entry{key: key, body: body})
		for c.order.Len() > c.limit {
			oldest := c.order.Back()
			c.order.Remove(oldest)
			delete(c.entries, oldest.Value.(*entry).key)
		}
	}
	return body
}

// Drop empties the cache.
func (c *Cache) Drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.order.Init()
	c.entries = make(map[string]*list.Element)
}

// Stats returns hits and misses so far.
func (c *Cache) Stats() (hits, misses uint64) {
	return atomic.LoadUint64(&c.hits), atomic.LoadUint64(&c.misses)
}
