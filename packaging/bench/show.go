// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/decnet/prefork/packaging/bench/peer"
	"github.com/decnet/prefork/packaging/bench/report"
)

// goals are the figures to reach. All are of 8 workers on the floor of 100 MB, unless
// they say otherwise.
var goals = []report.Goal{
	{Figure: "SIGKILL of a worker until its successor accepts, no backoff", Reach: "≤ 1.5 ms", Limit: 1.5, Scale: 1, Topic: "kill", Column: toAnswer},
	{Figure: "its first line, to one os.fork of the same floor", Reach: "≤ 1", Limit: 1, Ratio: true, Topic: "kill", Column: toEntry},
	{Figure: "private memory of an idle worker", Reach: "≤ 0.5 MB", Limit: 0.5, Scale: 1.0 / 1024, Topic: "memory", Column: privateIdle},
	{Figure: "the same, floor immortal", Reach: "≤ 0.5 MB", Limit: 0.5, Scale: 1.0 / 1024, Topic: "memory", Column: privateIdle, Ours: immortal},
	{Figure: "private memory of a worker after gc.collect()", Reach: "≤ 1.0 MB", Limit: 1, Scale: 1.0 / 1024, Topic: "memory", Column: privateGC},
	{Figure: "the same, floor immortal", Reach: "≤ 1.0 MB", Limit: 1, Scale: 1.0 / 1024, Topic: "memory", Column: privateGC, Ours: immortal},
	{Figure: "private memory of a worker after 300 requests, floor warm, repacked, immortal", Reach: "≤ 4.5 MB", Limit: 4.5, Scale: 1.0 / 1024, Topic: "shop", Column: privateShop, Ours: warm},
	{Figure: "and then a collection", Reach: "≤ 4.5 MB", Limit: 4.5, Scale: 1.0 / 1024, Topic: "shop", Column: privateShopGC, Ours: warm},
	{Figure: "PSS of supervisor and workers, idle", Reach: "≤ 103 MB", Limit: 103, Scale: 1, Topic: "memory", Column: pssIdle},
	{Figure: "PSS of supervisor and workers, after gc.collect()", Reach: "≤ 106 MB", Limit: 106, Scale: 1, Topic: "memory", Column: pssGC},
	{Figure: "the supervisor's own PSS, 8 slots", Reach: "≤ 6 MB", Limit: 6, Scale: 1, Topic: "memory", Column: pssMaster},
	{Figure: "the supervisor's own PSS, 100 slots", Reach: "≤ 7 MB", Limit: 7, Scale: 1, Topic: "slots", Column: pssMaster, Number: 100},
	{Figure: "its context switches per second, idle", Reach: "0", Limit: 0, Scale: 1, Topic: "idle", Column: switches},
	{Figure: "launch until 8 workers accept, beyond the imports", Reach: "≤ 0.05 s", Limit: 0.05, Scale: 0.001, Topic: "launch", Column: beyond},
	{Figure: "crash loop of two workers, 10 s: boots", Reach: "≤ 8", Limit: 8, Scale: 1, Topic: "crash", Column: boots},
	{Figure: "crash loop of two workers, 10 s: CPU of the supervisor", Reach: "≤ 0.05 s", Limit: 0.05, Scale: 1, Topic: "crash", Column: ownTime},
	{Figure: "requests per second through a socket handed down, to the entry by itself", Reach: "≥ 0.99", Limit: 0.99, Least: true, Ratio: true, Topic: "load", Column: rate},
	{Figure: "p99 of the same, to the entry by itself", Reach: "≤ 1.01", Limit: 1.01, Ratio: true, Topic: "load", Column: tail99},
	{Figure: "failed requests, new floor", Reach: "0", Limit: 0, Scale: 1, Topic: "roll", Column: failed, Ours: newFloor},
	{Figure: "failed requests, rolling restart", Reach: "0", Limit: 0, Scale: 1, Topic: "roll", Column: failed, Ours: rolling},
	{Figure: "failed requests, reload", Reach: "0", Limit: 0, Scale: 1, Topic: "roll", Column: failed, Ours: reload},
	{Figure: "1,000 slots: started", Reach: "≤ 2.5 s", Limit: 2.5, Scale: 1, Topic: "slots", Column: slotsStart, Number: 1000},
}

// keep writes every sample.
func keep(o options, r *report.Run) error {
	if err := os.MkdirAll(filepath.Dir(o.json), 0o755); err != nil {
		return err
	}
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		return err
	}
	return os.WriteFile(o.json, b.Bytes(), 0o644)
}

// show writes the tables and the plots, and prints the tables.
func show(o options, r *report.Run) error {
	const plots = "plots"
	dir := filepath.Dir(o.markdown)
	links, err := report.WritePlots(filepath.Join(dir, plots), r)
	if err != nil {
		return err
	}
	for _, names := range links {
		for i, name := range names {
			names[i] = path.Join(plots, name)
		}
	}
	var b bytes.Buffer
	fmt.Fprint(&b, "# Figures\n\nWritten by `make bench`; how each is measured: `go doc ./packaging/bench`. "+
		"A cell is the median and, in parentheses, the least and the most, or with 20 samples and more the first and the last decile.\n\n")
	ours, theirs := split(r)
	report.WriteGoals(&b, r, goals, ours, theirs)
	fmt.Fprintln(&b)
	report.WriteMarkdown(&b, r, links)
	if err := os.WriteFile(o.markdown, b.Bytes(), 0o644); err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, &b)
	return err
}

// split are the systems of a run: prefork's, and the others.
func split(r *report.Run) (ours, theirs []string) {
	for _, k := range peer.Kinds {
		switch {
		case !slices.Contains(r.Systems, k.Name):
		case k.Prefork():
			ours = append(ours, k.Name)
		default:
			theirs = append(theirs, k.Name)
		}
	}
	return ours, theirs
}
