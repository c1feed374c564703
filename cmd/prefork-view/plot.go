// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"

	"github.com/decnet/prefork/supervisor/memory"
)

// maxPast is how many reports are drawn over time: when there are as many, every other
// one is dropped, so that a picture can be drawn anew for weeks.
const maxPast = 1000

// drawReports reads reports, of prefork memory --json, and draws a file anew after each. It
// answers "" for one that is drawn, or what is wrong.
func drawReports(in io.Reader, out io.Writer, file string) error {
	var past []memory.Report
	reports, answers := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var r memory.Report
		if err := reports.Decode(&r); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		past = remember(past, r)
		wrong := ""
		if err := drawInto(file, past); err != nil {
			wrong = err.Error()
		}
		if err := answers.Encode(wrong); err != nil {
			return err
		}
	}
}

// remember keeps a report. Of those that were before, only sums are drawn.
func remember(past []memory.Report, r memory.Report) []memory.Report {
	if n := len(past); n > 0 {
		past[n-1].Slots, past[n-1].Floors = nil, nil
	}
	if len(past) == maxPast {
		for i := range maxPast / 2 {
			past[i] = past[2*i]
		}
		past = past[:maxPast/2]
	}
	return append(past, r)
}

// drawInto puts the picture in the place of the file, which is never half of one.
func drawInto(file string, past []memory.Report) error {
	text, err := picture(past, isPNG(file))
	if err != nil {
		return err
	}
	whole := file + ".new"
	if err := os.WriteFile(whole, text, 0o666); err != nil {
		return err
	}
	return os.Rename(whole, file)
}
