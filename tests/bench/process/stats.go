package main

import "sort"

// series are the results of one side's runs.
type series []float64

// of gives the median and the extremes; the series is not empty.
func (s series) of() (median, low, high float64) {
	sorted := append(series(nil), s...)
	sort.Float64s(sorted)
	middle := len(sorted) / 2
	median = sorted[middle]
	if len(sorted)%2 == 0 {
		median = (sorted[middle-1] + sorted[middle]) / 2
	}
	return median, sorted[0], sorted[len(sorted)-1]
}

// compare fills a figure from both sides' runs.
func (f figure) compare(ours, peer series) figure {
	f.Ours, f.Low, f.High = ours.of()
	f.Peer, f.PeerLow, f.PeerHigh = peer.of()
	f.Runs = len(ours)
	return f
}

// alternate runs both sides in turns, each first in every other turn, after one run of each that does not count.
func alternate(runs int, ours, peer func() (float64, error)) (oursSeries, peerSeries series, err error) {
	for i := -1; i < runs; i++ {
		var o, p float64
		if i%2 == 0 {
			if o, err = ours(); err == nil {
				p, err = peer()
			}
		} else {
			if p, err = peer(); err == nil {
				o, err = ours()
			}
		}
		if err != nil {
			return nil, nil, err
		}
		if i >= 0 {
			oursSeries, peerSeries = append(oursSeries, o), append(peerSeries, p)
		}
	}
	return oursSeries, peerSeries, nil
}
