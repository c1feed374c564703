// SPDX-License-Identifier: AGPL-3.0-or-later

package zygote

import (
	"encoding/json"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// literalCheck reads lines of [literal, value], and fails where evaluating the
// one, as JSON or as a worker does, does not give the other. repr tells types apart, which == does not.
const literalCheck = `
import json, os, sys
source = open("prefork_zygote/orders.py").read()
exec(source[source.index("def literal("):])
def value(tagged):
    tag, v = tagged
    if tag == "list": return [value(x) for x in v]
    if tag == "dict": return {k: value(x) for k, x in v}
    return {"str": str, "int": int, "float": float.fromhex, "bool": bool}[tag](v)
for line in sys.stdin:
    text, want = json.loads(line)
    for read in json.loads, lambda text: literal(text, None):
        if repr(read(text)) != repr(value(want)):
            print(text, "is not", value(want))
`

// tagged is a value for the check, with its type.
func tagged(v any) []any {
	switch v := v.(type) {
	case string:
		return []any{"str", v}
	case bool:
		return []any{"bool", v}
	case int64:
		return []any{"int", strconv.FormatInt(v, 10)}
	case float64:
		return []any{"float", strconv.FormatFloat(v, 'x', -1, 64)}
	case []any:
		items := []any{}
		for _, item := range v {
			items = append(items, tagged(item))
		}
		return []any{"list", items}
	default:
		m, items := v.(map[string]any), []any{}
		for _, key := range slices.Sorted(maps.Keys(m)) {
			items = append(items, []any{key, tagged(m[key])})
		}
		return []any{"dict", items}
	}
}

func randomValue(r *rand.Rand, depth int) any {
	switch n := r.IntN(10); {
	case n < 4:
		return randomText(r)
	case n < 5:
		return r.IntN(2) == 0
	case n < 6:
		return int64(r.Uint64())
	case n < 8 || depth == 0:
		for {
			if f := math.Float64frombits(r.Uint64()); !math.IsNaN(f) && !math.IsInf(f, 0) {
				return f
			}
		}
	case n < 9:
		items := make([]any, r.IntN(4))
		for i := range items {
			items[i] = randomValue(r, depth-1)
		}
		return items
	default:
		m := map[string]any{}
		for range r.IntN(4) {
			m[randomText(r)] = randomValue(r, depth-1)
		}
		return m
	}
}

func randomText(r *rand.Rand) string {
	alphabet := []rune{'a', '\'', '"', '\\', '\n', '\r', 0, 0x7f, 0x85, 'é', '\u2028', '\ufeff', '😀', '{', '%', 0x10ffff, '\ufffd'}
	var b strings.Builder
	for range r.IntN(8) {
		b.WriteRune(alphabet[r.IntN(len(alphabet))])
	}
	return b.String()
}

// What the real interpreter makes of a literal is the value.
func TestLiteralsAreWhatPythonReads(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	values := []any{
		"", "plain", "it's", `a\nb`, "\\", "\x00", "__import__('os')", int64(math.MinInt64), int64(math.MaxInt64), int64(0),
		0.0, math.Copysign(0, -1), 1.0, 1e21, 1e-7, 0.1, math.MaxFloat64, math.SmallestNonzeroFloat64, 1e16, -123456789.0,
		true, false,
		[]any{},
		map[string]any{},
		[]any{[]any{int64(1)}, map[string]any{"": "x", "a b": []any{}}},
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		values = append(values, randomValue(random, 4))
	}
	var input strings.Builder
	for _, v := range values {
		line, err := json.Marshal([]any{literal(v), tagged(v)})
		if err != nil {
			t.Fatal(err)
		}
		input.Write(append(line, '\n'))
	}
	cmd := exec.Command(python, "-c", literalCheck)
	cmd.Stdin = strings.NewReader(input.String())
	if output, err := cmd.CombinedOutput(); err != nil || len(output) > 0 {
		t.Errorf("%v:\n%.2000s", err, output)
	}
}

func TestLiteralsArePlainText(t *testing.T) {
	for _, c := range []struct {
		value any
		want  string
	}{
		{"it's \\ é\x00", `"it's \\ é\u0000"`},
		{int64(-1), "-1"},
		{1.0, "1.0"},
		{1e21, "1e+21"},
		{[]any{true, false, "x"}, `[true, false, "x"]`},
		{map[string]any{"b": int64(1), "a": []any{}}, `{"a": [], "b": 1}`},
	} {
		if got := literal(c.value); got != c.want {
			t.Errorf("%v: got %s, want %s", c.value, got, c.want)
		}
	}
	if got := ListLiteral(nil) + DictLiteral(nil) + ListLiteral([]any{}) + DictLiteral(map[string]any{}); got != "" {
		t.Errorf("no arguments: got %q", got)
	}
}

func TestAValueWithoutALiteralPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("it did not panic")
		}
	}()
	literal(struct{}{})
}
