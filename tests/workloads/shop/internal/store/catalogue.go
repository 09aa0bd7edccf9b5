// Package store keeps the shop's goods and its customers' carts.
package store

import (
	"errors"
	"fmt"
	"sort"
	"sync"
)

// ErrUnknownItem is returned where no item has the given SKU.
var ErrUnknownItem = errors.New("unknown item")

// Item is one article. Prices are in cents.
type Item struct {
	SKU   string `json:"sku"`
	Name  string `json:"name"`
	Cents int64  `json:"cents"`
	Stock int    `json:"stock"`
}

// Catalogue is safe for use by many goroutines.
type Catalogue struct {
	mu    sync.RWMutex
	items map[string]*Item
}

// NewCatalogue returns a catalogue of n items.
func NewCatalogue(n int) *Catalogue {
	nouns := []string{"teapot", "lamp", "chair", "notebook", "kettle", "blanket", "clock"}
	c := &Catalogue{items: make(map[string]*Item, n)}
	for i := 0; i < n; i++ {
		sku := fmt.Sprintf("sku-%04d", i)
		c.items[sku] = &Item{SKU: sku, Name: nouns[i%len(nouns)], Cents: int64(199 + i*37%9000), Stock: 1000}
	}
	return c
}

// List returns all items by SKU.
func (c *Catalogue) List() []Item {
	c.mu.RLock()
	defer c.mu.RUnlock()
	list := make([]Item, 0, len(c.items))
	for _, item := range c.items {
		list = append(list, *item)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].SKU < list[j].SKU })
	return list
}

// Find returns one item.
func (c *Catalogue) Find(sku string) (Item, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	item, ok := c.items[sku]
	if !ok {
		return Item{}, fmt.Errorf("%w: %q", ErrUnknownItem, sku)
	}
	return *item, nil
}

// Take removes quantity pieces from the stock.
func (c *Catalogue) Take(sku string, quantity int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	item, ok := c.items[sku]
	if !ok {
		return fmt.Errorf("%w: %q", ErrUnknownItem, sku)
	}
	if item.Stock < quantity {
		return fmt.Errorf("only %d of %q left", item.Stock, sku)
	}
	item.Stock -= quantity
	return nil
}

// Restock fills every shelf up to level pieces and returns how many were added.
func (c *Catalogue) Restock(level int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	added := 0
	for _, item := range c.items {
		if item.Stock < level {
			added += level - item.Stock
			item.Stock = level
		}
	}
	return added
}

// Hold takes the lock and returns what releases it.
func (c *Catalogue) Hold() (release func()) {
	c.mu.Lock()
	return c.mu.Unlock
}
