/* SPDX-License-Identifier: 0BSD */
/* Notes each of C's hooks of a fork: which, and in what process. */
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

static int notes;

static void note(const char *hook)
{
	char line[64];
	int size = snprintf(line, sizeof line, "C's %s %d\n", hook, (int)getpid());

	if (write(notes, line, size) != size)
		_exit(99);
}

static void prepare(void) { note("prepare"); }
static void parent(void) { note("parent"); }
static void child(void) { note("child"); }

int count(int fd)
{
	notes = fd;
	return pthread_atfork(prepare, parent, child);
}
