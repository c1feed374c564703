// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Error is one thing that is wrong with a fleet file.
type Error struct {
	File string // "" if there is none
	Line int    // counted from 1; 0 if it is about no line
	Key  string // such as worker.web.count; "" if it is about no key
	Text string // the rule and the remedy

	cause error // for errors.Is; nil if the file could be read
}

// Error returns FILE:LINE: KEY: TEXT, without the parts that are not known.
func (e *Error) Error() string {
	var b strings.Builder
	if e.File == "" {
		return e.Text
	}
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	if e.Key != "" {
		b.WriteString(": " + e.Key)
	}
	return b.String() + ": " + e.Text
}

// Unwrap returns the error of the system call if the file could not be read.
func (e *Error) Unwrap() error { return e.cause }

// Errors is everything that is wrong with a fleet file, sorted by line.
type Errors []*Error

// Error returns one line for each error.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the single errors.
func (es Errors) Unwrap() []error {
	list := make([]error, len(es))
	for i, e := range es {
		list[i] = e
	}
	return list
}

// tidy sorts and drops repetitions: what [defaults] has wrong is found again
// in each worker.
func (es Errors) tidy() Errors {
	slices.SortStableFunc(es, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), strings.Compare(a.Key, b.Key), strings.Compare(a.Text, b.Text))
	})
	return slices.CompactFunc(es, func(a, b *Error) bool {
		return a.Line == b.Line && a.Key == b.Key && a.Text == b.Text
	})
}

// unknown reports a key that the table does not have, with the nearest key that
// it has, what is here for a word of others, or the table where the key belongs.
func (l *loader) unknown(path, name, header string, isDefaults, isTable bool) {
	here := Table{Header: header}
	var elsewhere []string
	for _, t := range l.schema {
		if t.Header == header {
			here = t
			continue
		}
		for _, k := range t.Keys {
			if plain(k.Name) == plain(name) {
				elsewhere = append(elsewhere, tableText(t.Header))
			}
		}
	}
	names := make([]string, len(here.Keys))
	for i, k := range here.Keys {
		names[i] = k.Name
	}
	near, others := Nearest(name, names), l.ofOthers(name, header, isDefaults, isTable)
	where := tableText(header)
	if isDefaults {
		where = "[defaults]"
	}
	switch {
	case others != "" && plain(near) != plain(name):
		l.errorf(path, "unknown key in %s; %s", where, others)
	case near != "" && (plain(near) == plain(name) || elsewhere == nil):
		l.errorf(path, "unknown key in %s; did you mean %s?", where, near)
	case elsewhere != nil:
		l.errorf(path, "unknown key in %s; move it to %s, where it belongs", where, strings.Join(elsewhere, " or "))
	default:
		l.errorf(path, "unknown key in %s; remove it (prefork init prints all keys that there are)", where)
	}
}

func tableText(header string) string {
	if header == "" {
		return "the top level"
	}
	return header
}

// plain makes RestartSec, restart-sec and restart_sec the same.
func plain(name string) string {
	return strings.ToLower(dashes.Replace(name))
}

var dashes = strings.NewReplacer("_", "", "-", "")

// maxLikely bounds the work of Nearest: no key is longer.
const maxLikely = 40

// Nearest returns the name that is so like the given one that it may have been
// meant, or "".
func Nearest(name string, names []string) string {
	want := plain(name[:min(len(name), maxLikely)])
	best, least := "", 1+max(1, len(want)/4)
	for _, candidate := range names {
		p := plain(candidate)
		if abs(len(p)-len(want)) >= least {
			continue
		}
		if d := distance(want, p); d < least {
			best, least = candidate, d
		}
	}
	return best
}

func abs(n int) int { return max(n, -n) }

// distance counts insertions, deletions, substitutions and swaps of neighbours
// that turn a into b.
func distance(a, b string) int {
	var before, last []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}

// foreign are the keys of other supervisors, written as by [plain]: what is here for them, as
// a key of a table, or as a remedy, which has blanks.
var foreign = map[string]string{
	// gunicorn, uwsgi
	"workers": "worker.count", "processes": "worker.count", "bind": "socket.listen", "gracefultimeout": "worker.timeout_stop_sec",
	"maxrequests": "worker.recycle_requests", "maxrequestsjitter": "slots take turns when they are recycled; remove it",
	"timeout":     "write watchdog_sec for a worker that hangs, timeout_start_sec and timeout_stop_sec for its start and stop",
	"workerclass": "what a worker runs is its entry or exec; remove it", "preloadapp": "floor.preload", "pythonpath": "floor.path", "chdir": "worker.working_directory",
	"daemon": noDaemon, "daemonize": noDaemon, "pidfile": "prefork status tells the processes; remove it", "harakiri": "worker.watchdog_sec",
	"loglevel": noOutput, "logfile": noOutput, "accesslog": noOutput, "errorlog": noOutput, "virtualenv": "floor.python", "venv": "floor.python", "interpreter": "floor.python",
	"callable": "worker.entry", "module": "worker.entry", "target": "worker.entry", "script": noShell, "reloadonrss": "worker.recycle_private",

	// supervisord, pm2 and the like
	"command": noShell, "cmd": noShell, "numprocs": "worker.count", "instances": "worker.count", "directory": "worker.working_directory", "cwd": "worker.working_directory",
	"autostart": "a fleet starts all of its workers; when it starts itself is said by start, at the top level", "autorestart": "worker.restart",
	"startsecs": "write type = \"notify\" for a worker that says when it is ready; remove it", "startretries": "worker.start_limit_burst", "maxrestarts": "worker.start_limit_burst",
	"exitcodes": "worker.success_exit_status", "stopsignal": "worker.kill_signal", "stopwaitsecs": "worker.timeout_stop_sec", "killtimeout": "worker.timeout_stop_sec",
	"stopasgroup": "write kill_mode = \"control-group\"", "killasgroup": "what a process leaves behind is always killed; remove it", "redirectstderr": noOutput,
	"stdoutlogfile": noOutput, "stderrlogfile": noOutput, "stdout": noOutput, "stderr": noOutput, "processname": "slots are named by their worker, web.0; remove it",
	"priority": "worker.nice", "maxbackoff": "worker.restart_max_delay_sec", "backoff": "worker.restart_sec", "restartdelay": "worker.restart_sec", "restartdelaysec": "worker.restart_sec",
	"pollinterval": "nothing is polled; remove it", "watchdog": "worker.watchdog_sec", "watchdogtimeout": "worker.watchdog_sec", "maxmemoryrestart": "worker.recycle_private",

	// docker, kubernetes
	"replicas": "worker.count", "ports": "socket.listen", "port": "socket.listen", "host": "socket.listen", "memorylimit": "worker.memory_max", "memlimit": "worker.memory_max",
	"memory": "worker.memory_max", "maxmemory": "worker.memory_max", "cpus": "worker.cpu_quota", "cpulimit": "worker.cpu_quota", "cpushares": "worker.cpu_weight",
	"pidslimit": "worker.tasks_max", "workdir": "worker.working_directory", "workingdir": "worker.working_directory", "entrypoint": noShell, "env": "worker.environment",
	"envfile": "worker.environment_file", "environ": "worker.environment", "stopgraceperiod": "worker.timeout_stop_sec", "terminationgraceperiodseconds": "worker.timeout_stop_sec",
	"healthcheck": "worker.watchdog_sec", "livenessprobe": "worker.watchdog_sec", "restartpolicy": "worker.restart", "ulimits": "write limit_nofile and its like",

	// systemd
	"execstart": noShell, "execreload": "prefork kill --signal HUP sends what it would; remove it", "execstop": "worker.kill_signal", "timeoutsec": "write timeout_start_sec and timeout_stop_sec",
	"execstartpre": "floor.setup is called once for all workers; a program belongs in a drop-in of the unit", "listenstream": "socket.listen", "listendatagram": "socket.listen",
	"standardoutput": noOutput, "standarderror": noOutput, "syslogidentifier": "lines have the name of the slot, web.0; remove it", "uid": "worker.user", "gid": "worker.group",
	"requires": ofUnit, "wants": ofUnit, "wantedby": ofUnit, "before": ofUnit, "slice": ofUnit, "privatetmp": ofUnit, "protectsystem": ofUnit,
	"protecthome": ofUnit, "readwritepaths": ofUnit, "execcondition": ofUnit, "oompolicy": ofUnit, "delegate": ofUnit,
}

const (
	noDaemon = "prefork stays in the foreground, and systemd runs it; remove it"
	noOutput = "what a worker prints goes to the journal, or where prefork was started, by itself; remove it"
	noShell  = "write exec = [\"/path/of/the/program\", \"argument\"], without a shell, or entry = \"module:callable\""
	ofUnit   = "it is for all of the fleet: systemctl edit prefork@NAME"
)

// foreignTables are tables of others, written as by [plain], for which there is one here.
var foreignTables = map[string]string{
	"program": "[worker.NAME]", "programs": "[worker.NAME]", "service": "[worker.NAME]", "services": "[worker.NAME]", "process": "[worker.NAME]", "processes": "[worker.NAME]",
	"apps": "[worker.NAME]", "app": "[worker.NAME]", "container": "[worker.NAME]", "containers": "[worker.NAME]",
	"supervisord": "[defaults]", "unit": "description, at the top level", "install": "start = \"boot\", at the top level",
}

// ofOthers is what to do about a key or a table that is another supervisor's, "" if it is none.
func (l *loader) ofOthers(name, header string, isDefaults, isTable bool) string {
	if isTable && header == "" {
		if ours := foreignTables[plain(name)]; ours != "" {
			return "did you mean " + ours + "?"
		}
		return ""
	}
	ours := foreign[plain(name)]
	if ours == "" || strings.Contains(ours, " ") {
		return ours
	}
	table, key, _ := strings.Cut(ours, ".")
	for _, t := range l.schema {
		word, _, _ := strings.Cut(strings.Trim(t.Header, "[]"), ".")
		switch {
		case word != table || !slices.ContainsFunc(t.Keys, func(k Key) bool { return k.Name == key }):
			continue
		case t.Header == header:
			return "did you mean " + key + "?"
		case isDefaults && table == "worker":
			return "did you mean " + key + "?"
		}
		return fmt.Sprintf("did you mean %s in %s?", key, t.Header)
	}
	return ""
}

// sectionOfOthers is what to do about a table such as [program:web], which is no TOML.
func sectionOfOthers(line string) string {
	word, name, found := strings.Cut(strings.Trim(strings.TrimSpace(line), "[]"), ":")
	if ours := foreignTables[plain(word)]; found && strings.HasPrefix(strings.TrimSpace(line), "[") && ours != "" {
		if isName(name) {
			ours = strings.Replace(ours, "NAME", name, 1)
		}
		return "did you mean " + ours + "?"
	}
	return ""
}
