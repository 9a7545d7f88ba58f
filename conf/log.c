/* SPDX-License-Identifier: MIT */
/* log.c - one write(2) per line, so that lines of several threads do not mix. */
#include "conf/log.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int json;		/* set once, before threads start */

void
log_init(struct log *l, const char *who)
{
	*l = (struct log){ .level = LOG_INFO };
	snprintf(l->who, sizeof(l->who), "%s", who);
}

void
log_format_json(int on)
{
	json = on;
}

/* Append @s as the inside of a JSON string. */
static size_t
quote(char *out, size_t cap, const char *s)
{
	size_t n = 0;

	for (; *s != '\0' && n + 7 < cap; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\') {
			out[n++] = '\\';
			out[n++] = (char)c;
		} else if (c < 0x20)
			n += (size_t)snprintf(out + n, cap - n, "\\u%04x", c);
		else
			out[n++] = (char)c;
	}
	out[n] = '\0';
	return n;
}

static void
to_stderr(enum log_level level, const char *who, const char *what,
    const char *fields)
{
	static const char *const names[] = { "error", "warn", "info", "debug" };
	char line[2600], when[40], f[2048];
	struct timespec ts;
	struct tm tm;
	int n;

	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm);
	if (json) {
		quote(f, sizeof(f), fields);
		n = snprintf(line, sizeof(line),
		    "{\"time\":\"%s.%03ldZ\",\"level\":\"%s\",\"role\":\"%s\","
		    "\"what\":\"%s\",\"fields\":\"%s\"}\n", when,
		    ts.tv_nsec / 1000000, names[level], who, what, f);
	} else
		n = snprintf(line, sizeof(line), "%s.%03ldZ %s %s: %s%s%s\n", when,
		    ts.tv_nsec / 1000000, names[level], who, what,
		    fields[0] != '\0' ? " " : "", fields);
	if (n >= (int)sizeof(line)) {
		n = (int)sizeof(line) - 1;
		line[n - 1] = '\n';
	}
	if (write(STDERR_FILENO, line, (size_t)n) < 0)
		return;		/* nowhere to say it */
}

void
log_write(const struct log *l, enum log_level level, const char *what,
    const char *fmt, ...)
{
	char fields[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(fields, sizeof(fields), fmt, ap);
	va_end(ap);
	if (l->sink != NULL)
		l->sink(l->ctx, level, l->who, what, fields);
	else
		to_stderr(level, l->who, what, fields);
}
