// SPDX-License-Identifier: AGPL-3.0-or-later

package examine

import (
	"strings"
	"testing"
	"unicode"

	"github.com/decnet/prefork/supervisor/fleetfile"
)

// What a floor writes that is no report makes none, and nothing that a terminal would act
// on; what a floor could not end is told.
func TestWhatAFloorWritesIsNotTrusted(t *testing.T) {
	r := newReport(&fleetfile.File{})
	read([]byte(`{"do":"begin"}
{"do":"enter","name":"importing a\u001b[31m"}
nonsense
{"do":"leave","opened":[["x"],[],[7,null,99]],"changed":[[]],"threads":"x","started":[[1,2,3]]}
{"do":"leave"}
{"do":"leave"}
{"do":"enter","name":"importing b"}
{"do":"enter","name":"b","s":1e300,"kB":-5}
  File "<prefork zygote>", line 1 in x
  File "/app/b.py", line 7 in wait
`), r)
	if len(r.Modules) != 2 || r.Modules[0].Name != "a [31m" || r.Modules[0].Failed || r.Modules[1].Name != "b" || !r.Modules[1].Failed {
		t.Errorf("modules: %+v", r.Modules)
	}
	if len(r.Descriptors) != 3 || r.Descriptors[2].Verdict != Shared || len(r.Processes) != 1 || len(r.Threads) > 0 {
		t.Errorf("found: %+v", r)
	}
	if len(r.Stuck) != 1 || r.Stuck[0] != `File "/app/b.py", line 7 in wait` {
		t.Errorf("stuck: %q", r.Stuck)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("{\"do\":\"enter\",\"name\":\"importing a\"}\n{\"do\":\"enter\",\"name\":\"a\",\"opened\":[[3,\"socket:[1]\",2,false,\"/a.py:1\"]]}\n{\"do\":\"left\",\"descriptors\":[3]}"))
	f.Add([]byte("{\"do\":\"left\",\"hooks\":[[\"a\",\"before\",\"\",1]],\"loops\":[[\"x\",true,false,3]],\"threads\":[1]}"))
	f.Fuzz(func(t *testing.T, written []byte) {
		r := newReport(&fleetfile.File{})
		read(written, r)
		var texts []string
		for _, m := range r.Modules {
			texts = append(texts, m.Name)
		}
		for _, d := range r.Descriptors {
			texts = append(texts, d.Target, d.Where, d.During)
		}
		for _, text := range append(texts, r.Stuck...) {
			if strings.ContainsFunc(text, func(c rune) bool { return !unicode.IsPrint(c) }) {
				t.Errorf("%q is not fit for a terminal", text)
			}
		}
	})
}
