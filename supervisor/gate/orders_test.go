// SPDX-License-Identifier: AGPL-3.0-or-later

package gate

import (
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/quick"
	"time"
)

// field returns orders with one field set to something that is not its zero
// value.
func field(t *testing.T, i int) *Orders {
	t.Helper()
	o := &Orders{}
	random := rand.New(rand.NewPCG(1, 2))
	v := reflect.ValueOf(o).Elem().Field(i)
	switch v.Interface().(type) {
	case string:
		v.SetString(" a=b\n\tc ")
	case []string:
		v.Set(reflect.ValueOf([]string{"A=1", "", "=", "b c"}))
	case time.Duration:
		v.Set(reflect.ValueOf(1500 * time.Microsecond))
	case []int:
		v.Set(reflect.ValueOf([]int{63, 0, 13}))
	case int:
		v.SetInt(-1 - random.Int64N(1000))
	case bool:
		v.SetBool(true)
	case *uint32:
		v.Set(reflect.ValueOf(new(uint32(0o027))))
	case *int:
		v.Set(reflect.ValueOf(new(-20)))
	case []Limit:
		v.Set(reflect.ValueOf([]Limit{{7, 0, ^uint64(0)}, {7, 1 << 40, ^uint64(0) - 1}}))
	default:
		t.Fatalf("no value is known for a %s", v.Type())
	}
	return o
}

// A field that Encode or Decode forgets would be an order that is not obeyed.
func TestEveryFieldOfOrdersTravels(t *testing.T) {
	kind := reflect.TypeFor[Orders]()
	all := &Orders{}
	for i := range kind.NumField() {
		want := field(t, i)
		got, err := Decode(want.Encode())
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v and %v, want %+v", kind.Field(i).Name, got, err, want)
		}
		reflect.ValueOf(all).Elem().Field(i).Set(reflect.ValueOf(want).Elem().Field(i))
	}
	if got, err := Decode(all.Encode()); err != nil || !reflect.DeepEqual(got, all) {
		t.Errorf("all of them: got %+v and %v, want %+v", got, err, all)
	}
	if got, err := Decode((&Orders{}).Encode()); err != nil || !reflect.DeepEqual(got, &Orders{}) {
		t.Errorf("none: got %+v and %v", got, err)
	}
	// Zero is a value here, and not "leave it as it is".
	zero := &Orders{Umask: new(uint32(0)), Nice: new(0), OOMScoreAdjust: new(0)}
	if got, err := Decode(zero.Encode()); err != nil || !reflect.DeepEqual(got, zero) {
		t.Errorf("zeroes: got %+v and %v, want %+v", got, err, zero)
	}
}

// A watchdog of nothing would be none.
func TestWatchdogIsRoundedUpToMicroseconds(t *testing.T) {
	for interval, want := range map[time.Duration]time.Duration{
		1: time.Microsecond, time.Microsecond: time.Microsecond, time.Second + 1: time.Second + time.Microsecond,
		math.MaxInt64 / 1000 * 1000: math.MaxInt64 / 1000 * 1000, 0: 0, -time.Second: 0,
	} {
		if got, err := Decode((&Orders{Watchdog: interval}).Encode()); err != nil || got.Watchdog != want {
			t.Errorf("%d ns: got %v and %v, want %v", interval, got, err, want)
		}
	}
}

func TestNoValueAddsAField(t *testing.T) {
	o := &Orders{Worker: "web\x00user=root", Env: []string{"A=1\x00nice=-20"}}
	got, err := Decode(o.Encode())
	want := &Orders{Worker: "webuser=root", Env: []string{"A=1nice=-20"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v and %v, want %+v", got, err, want)
	}
}

func TestListsTravelWhole(t *testing.T) {
	same := func(argv, env []string, limits []Limit) bool {
		for _, list := range [][]string{argv, env} {
			for i := range list {
				list[i] = strings.ReplaceAll(list[i], "\x00", "")
			}
		}
		o := &Orders{Argv: argv, Env: env, Limits: limits}
		got, err := Decode(o.Encode())
		return err == nil && slices.Equal(got.Argv, argv) && slices.Equal(got.Env, env) && slices.Equal(got.Limits, limits)
	}
	if err := quick.Check(same, nil); err != nil {
		t.Error(err)
	}
}

func TestDecodeRefusesNonsense(t *testing.T) {
	for _, text := range []string{
		"", "worker", "worker=web\x00", "colour=red", "=", "index=x", "index=", "nice=1.5", "umask=8", "umask=-1",
		"watchdog=", "watchdog=-1", "watchdog=1s", "watchdog=9223372036854776", "watchdog=18446744073709551616",
		"oom_score_adjust=", "oom_score_adjust=x", "ambient=", "ambient=-1", "ambient=64", "ambient=CAP_CHOWN",
		"generation=", "master=self", "limit=7:1", "limit=7:1:2:3", "limit=x:1:2", "limit=7:-1:2", "limit=7:1:",
	} {
		if o, err := Decode([]byte(text)); err == nil {
			t.Errorf("%q: got %+v and no error", text, o)
		}
	}
}

// FuzzDecode: what is decoded encodes to what decodes to the same.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("fleet=f\x00worker=web\x00index=1\x00limit=7:1:infinity\x00umask=022\x00nice=-5\x00env=A=\x00env="))
	f.Add([]byte("argv=\x00argv=a\x00stdout=1\x00stderr=2\x00master=-1"))
	f.Add([]byte("listen=http\x00stored=a\x00stored=\x00watchdog=1\x00oom_score_adjust=-1000\x00ambient=0\x00ambient=63"))
	f.Add([]byte("watchdog=9223372036854775\x00watchdog=0\x00oom_score_adjust=+7"))
	f.Fuzz(func(t *testing.T, fields []byte) {
		o, err := Decode(fields)
		if err != nil {
			return
		}
		again, err := Decode(o.Encode())
		if err != nil || !reflect.DeepEqual(o, again) {
			t.Errorf("%q: got %+v and %v, want %+v", fields, again, err, o)
		}
	})
}
