package store

import "sync"

// Line is one position of a cart.
type Line struct {
	SKU      string `json:"sku"`
	Quantity int    `json:"quantity"`
}

// Carts holds the carts of all customers.
type Carts struct {
	mu    sync.Mutex
	carts map[string][]Line
}

// NewCarts returns an empty set of carts.
func NewCarts() *Carts { return &Carts{carts: make(map[string][]Line)} }

// Add puts quantity pieces into the customer's cart and returns the cart.
func (c *Carts) Add(customer, sku string, quantity int) []Line {
	c.mu.Lock()
	defer c.mu.Unlock()
	lines := c.carts[customer]
	for i := range lines {
		if lines[i].SKU == sku {
			lines[i].Quantity += quantity
			return append([]Line(nil), lines...)
		}
	}
	c.carts[customer] = append(lines, Line{SKU: sku, Quantity: quantity})
	return append([]Line(nil), c.carts[customer]...)
}

// Clear empties the cart and returns what was in it.
func (c *Carts) Clear(customer string) []Line {
	c.mu.Lock()
	defer c.mu.Unlock()
	lines := c.carts[customer]
	delete(c.carts, customer)
	return lines
}

// Len returns how many customers have a cart.
func (c *Carts) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.carts)
}
