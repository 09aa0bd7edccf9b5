package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"example.com/shop/internal/fault"
	"example.com/shop/internal/store"
)

func (s *shop) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/catalogue", s.catalogueHandler)
	mux.HandleFunc("/cart", s.cartHandler)
	mux.HandleFunc("/checkout", s.checkoutHandler)
	mux.HandleFunc("/fault/handler", s.panicHandler)
	mux.HandleFunc("/fault/", s.faultHandler)
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "ok") })
	return mux
}

// GET /catalogue, GET /catalogue?sku=sku-0001
func (s *shop) catalogueHandler(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	sku := r.FormValue("sku")
	if sku == "" {
		w.Write(s.cache.Fetch("list", func() []byte { return render(s.catalogue.List()) }))
		return
	}
	item, err := s.catalogue.Find(sku)
	if err != nil {
		refuse(w, err)
		return
	}
	w.Write(render(item))
}

// POST /cart?customer=c1&sku=sku-0001&quantity=2
func (s *shop) cartHandler(w http.ResponseWriter, r *http.Request) {
	quantity, err := strconv.Atoi(r.FormValue("quantity"))
	if err != nil || quantity < 1 || quantity > 100 {
		http.Error(w, "quantity: a number from 1 to 100 is needed", http.StatusBadRequest)
		return
	}
	item, err := s.catalogue.Find(r.FormValue("sku"))
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(render(s.carts.Add(r.FormValue("customer"), item.SKU, quantity)))
}

// POST /checkout?customer=c1: takes the goods, leaves the receipt to a worker.
func (s *shop) checkoutHandler(w http.ResponseWriter, r *http.Request) {
	customer := r.FormValue("customer")
	lines := s.carts.Clear(customer)
	if len(lines) == 0 {
		http.Error(w, "the cart is empty", http.StatusConflict)
		return
	}
	var cents int64
	for _, line := range lines {
		item, err := s.catalogue.Find(line.SKU)
		if err == nil {
			err = s.catalogue.Take(line.SKU, line.Quantity)
		}
		if err != nil {
			refuse(w, err)
			return
		}
		cents += item.Cents * int64(line.Quantity)
	}
	s.cache.Drop()
	s.orders.Add(1)
	if !s.pool.Submit(func() { s.receipt(customer, cents, len(lines)) }) {
		s.log.Error("receipt dropped", "customer", customer)
	}
	fmt.Fprintf(w, "{\"customer\":%q,\"cents\":%d}\n", customer, cents)
}

func (s *shop) receipt(customer string, cents int64, positions int) {
	time.Sleep(2 * time.Millisecond) // the printer
	s.log.Info("receipt", "customer", customer, "cents", cents, "positions", positions)
}

// GET /fault/NAME: raises the fault on a worker, because net/http would recover a panic here.
func (s *shop) faultHandler(w http.ResponseWriter, r *http.Request) {
	raise, err := fault.Find(strings.TrimPrefix(r.URL.Path, "/fault/"), s)
	if err != nil {
		refuse(w, err)
		return
	}
	w.WriteHeader(http.StatusAccepted)
	fmt.Fprintln(w, "it will happen")
	if flusher, ok := w.(http.Flusher); ok {
		flusher.Flush()
	}
	s.pool.Submit(raise)
}

// GET /fault/handler: the one fault that belongs here.
func (s *shop) panicHandler(w http.ResponseWriter, r *http.Request) {
	var discount map[string]int
	discount[r.URL.Path] = 10
}

func render(value interface{}) []byte {
	body, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return append(body, '\n')
}

func refuse(w http.ResponseWriter, err error) {
	status := http.StatusConflict
	if errors.Is(err, store.ErrUnknownItem) || errors.Is(err, fault.ErrUnknown) {
		status = http.StatusNotFound
	} else if errors.Is(err, fault.ErrUnavailable) {
		status = http.StatusNotImplemented
	}
	http.Error(w, err.Error(), status)
}
