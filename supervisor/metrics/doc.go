// SPDX-License-Identifier: AGPL-3.0-or-later

// Package metrics is how a machine sees a fleet that runs: three paths over HTTP,
// on a socket of their own.
//
//	/metrics  what there is to count and to measure, as OpenMetrics or in
//	          Prometheus's text format
//	/healthz  200 while the loop of the master answers, else 503
//	/readyz   200 while the fleet is active and has a ready slot of each worker that
//	          needs one, else 503 with the reason; ?worker=web&min=2 asks for more
//
// It is the only socket on which the master accepts connections from the network.
// What it takes is little: GET or HEAD, no body, one request for each connection.
// Whoever connects is not trusted to write, to read or to be few. Each connection
// is served by a goroutine of its own, within bounds of size and time; when all
// places are taken, one that has not asked for anything yet makes room. The loop
// of the master answers, and waits for nobody here.
//
// The server is not that of net/http, which would make every process of the
// program larger: the master, and the shim of each program that it starts.
package metrics
