/* SPDX-License-Identifier: MIT */
/* parse.c - one pass over each line, no state between lines. */
#include "conf/parse.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static bool
blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

static bool
name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
}

static bool
comment_char(char c)
{
	return c == '#' || c == ';';
}

static const char *
skip_blanks(const char *p, const char *end)
{
	while (p < end && blank(*p))
		p++;
	return p;
}

static int
fail(const char **why, const char *text)
{
	*why = text;
	return -EINVAL;
}

/* ---- lines ---- */

static int
cut(const char **at, const char *end, struct conf_line *out, const char **why)
{
	const char *p = *at = skip_blanks(*at, end);

	if (p == end || comment_char(*p))
		return 0;
	out->kind = CONF_LINE_OPTION;
	if (*p == '[') {
		out->kind = CONF_LINE_SECTION;
		p = skip_blanks(p + 1, end);
	}
	out->name = p;
	while (p < end && name_char(*p))
		p++;
	out->name_n = (size_t)(p - out->name);
	*at = p = skip_blanks(p, end);
	if (out->name_n == 0)
		return fail(why, "expected an option name, [section] or a comment");
	if (out->kind == CONF_LINE_SECTION) {
		if (p == end || *p != ']')
			return fail(why, "expected ]");
		*at = p = skip_blanks(p + 1, end);
		if (p != end && !comment_char(*p))
			return fail(why, "text after ]");
		return 0;
	}
	if (p == end || *p != '=')
		return fail(why, "expected =");
	p = skip_blanks(p + 1, end);
	out->value = p;
	out->value_n = (size_t)(end - p);
	return 0;
}

int
conf_line_cut(const char *line, size_t n, struct conf_line *out, unsigned *col,
    const char **why)
{
	const char *at = line;
	int rc;

	*out = (struct conf_line){ .kind = CONF_LINE_BLANK };
	if (n > CONF_LINE_MAX) {
		*col = CONF_LINE_MAX + 1;
		return fail(why, "line is too long");
	}
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)line[i];

		if ((c < 0x20 && c != '\t' && (c != '\r' || i + 1 < n)) ||
		    c == 0x7f) {
			*col = (unsigned)i + 1;
			return fail(why, "control character");
		}
	}
	rc = cut(&at, line + n, out, why);
	*col = (unsigned)(at - line) + 1;
	if (out->name != NULL)
		out->name_col = (unsigned)(out->name - line) + 1;
	if (out->value != NULL)
		out->value_col = (unsigned)(out->value - line) + 1;
	return rc;
}

/* ---- words ---- */

void
conf_words_init(struct conf_words *w, const char *value, size_t n, bool list,
    bool comments)
{
	*w = (struct conf_words){ .start = value, .p = value, .end = value + n,
	    .list = list, .comments = comments };
}

/* Here the value ends: at its end, or where a comment begins. */
static bool
at_end(const struct conf_words *w, const char *p)
{
	return p == w->end || (w->comments && comment_char(*p) &&
	    (p == w->start || blank(p[-1])));
}

static int
quoted_word(struct conf_words *w, char *out, const char **why)
{
	size_t n = 0;

	for (w->p++; w->p < w->end && *w->p != '"'; w->p++) {
		if (*w->p == '\\' && (++w->p == w->end ||
		    (*w->p != '"' && *w->p != '\\')))
			return fail(why, "expected \\\" or \\\\ after \\");
		if (n + 1 == CONF_WORD_MAX)
			return fail(why, "value is too long");
		out[n++] = *w->p;
	}
	out[n] = '\0';
	if (w->p == w->end)
		return fail(why, "missing closing \"");
	w->p = skip_blanks(w->p + 1, w->end);
	if (!at_end(w, w->p) && !(w->list && *w->p == ','))
		return fail(why, "text after closing \"");
	return 1;
}

static int
plain_word(struct conf_words *w, char *out, const char **why)
{
	const char *from = w->p, *to = w->p;

	while (!at_end(w, w->p) && !(w->list && *w->p == ',')) {
		if (*w->p == '"')
			return fail(why, "\" within a value; quote all of it");
		if (!blank(*w->p++))
			to = w->p;
	}
	if ((size_t)(to - from) >= CONF_WORD_MAX)
		return fail(why, "value is too long");
	memcpy(out, from, (size_t)(to - from));
	out[to - from] = '\0';
	return 1;
}

int
conf_words_next(struct conf_words *w, char *out, size_t *off, const char **why)
{
	int rc;

	w->p = skip_blanks(w->p, w->end);
	*off = (size_t)(w->p - w->start);
	if (w->begun) {
		if (at_end(w, w->p))
			return 0;
		w->p = skip_blanks(w->p + 1, w->end);	/* over the comma */
		*off = (size_t)(w->p - w->start);
	} else if (w->list && at_end(w, w->p))
		return 0;
	w->begun = true;
	if (!at_end(w, w->p) && *w->p == '"')
		rc = quoted_word(w, out, why);
	else
		rc = plain_word(w, out, why);
	if (rc < 0)
		*off = (size_t)(w->p - w->start);
	else if (w->list && out[0] == '\0')
		return fail(why, "empty item");
	return rc;
}

/* ---- numbers ---- */

/* Digits at *s; moves *s behind them. */
static int
digits(const char **s, uint64_t *out, const char **why)
{
	uint64_t v = 0;

	if (**s < '0' || **s > '9')
		return fail(why, "expected a number");
	for (; **s >= '0' && **s <= '9'; ++*s)
		if (__builtin_mul_overflow(v, 10u, &v) ||
		    __builtin_add_overflow(v, (unsigned)(**s - '0'), &v))
			return fail(why, "number is too large");
	*out = v;
	return 0;
}

struct unit {
	const char *text;
	uint64_t    times;
};

/* Digits, blanks, one of @units (ends with a NULL text). */
static int
number_with_unit(const char *s, const struct unit *units, const char *expected,
    uint64_t *out, const char **why)
{
	uint64_t v;

	if (digits(&s, &v, why) != 0)
		return -EINVAL;
	while (*s == ' ')
		s++;
	for (; units->text != NULL; units++)
		if (strcmp(units->text, s) == 0) {
			if (__builtin_mul_overflow(v, units->times, out))
				return fail(why, "number is too large");
			return 0;
		}
	if (v == 0 && *s == '\0') {
		*out = 0;
		return 0;
	}
	return fail(why, expected);
}

static const struct unit byte_units[] = {
	{ "TiB", 1ull << 40 }, { "GiB", 1u << 30 }, { "MiB", 1u << 20 },
	{ "KiB", 1u << 10 }, { "", 1 }, { "B", 1 },
	{ "kB", 1000 }, { "MB", 1000000 }, { "GB", 1000000000 },
	{ "TB", 1000000000000 }, { NULL, 0 }
};
static const struct unit time_units[] = {
	{ "h", 3600000 }, { "min", 60000 }, { "s", 1000 }, { "ms", 1 }, { NULL, 0 }
};

int
conf_number(const char *s, uint64_t *out, const char **why)
{
	uint64_t v;

	if (digits(&s, &v, why) != 0)
		return -EINVAL;
	if (*s != '\0')
		return fail(why, "expected a number without a unit");
	*out = v;
	return 0;
}

int
conf_bytes(const char *s, uint64_t *out, const char **why)
{
	return number_with_unit(s, byte_units,
	    "expected a size: B, KiB, MiB, GiB, TiB, kB, MB, GB or TB", out, why);
}

int
conf_time(const char *s, uint64_t *out_ms, const char **why)
{
	return number_with_unit(s, time_units,
	    "expected a time: ms, s, min or h", out_ms, why);
}

int
conf_percent(const char *s, uint64_t *out, const char **why)
{
	uint64_t v;

	if (digits(&s, &v, why) != 0)
		return -EINVAL;
	while (*s == ' ')
		s++;
	if (*s == '%')
		s++;
	if (*s != '\0' || v > 100)
		return fail(why, "expected a percentage from 0 to 100");
	*out = v;
	return 0;
}

int
conf_flag(const char *s, bool *out, const char **why)
{
	static const char *const yes[] = { "yes", "true", "on" };
	static const char *const no[] = { "no", "false", "off" };

	for (unsigned i = 0; i < 3; i++)
		if (strcmp(s, yes[i]) == 0 || strcmp(s, no[i]) == 0) {
			*out = strcmp(s, yes[i]) == 0;
			return 0;
		}
	return fail(why, "expected yes or no");
}

static void
unit_text(uint64_t v, const struct unit *units, const char *zero, char *out)
{
	/* Units come largest first and end with one of 1. */
	while (units->times > 1 && v % units->times != 0)
		units++;
	if (v == 0)
		snprintf(out, CONF_NUMBER_TEXT, "%s", zero);
	else
		snprintf(out, CONF_NUMBER_TEXT, "%" PRIu64 "%s", v / units->times,
		    units->text);
}

void
conf_bytes_text(uint64_t v, char out[CONF_NUMBER_TEXT])
{
	unit_text(v, byte_units, "0", out);
}

void
conf_time_text(uint64_t ms, char out[CONF_NUMBER_TEXT])
{
	unit_text(ms, time_units, "0s", out);
}

/* ---- addresses ---- */

static bool
is_ip6(const char *s, size_t n)
{
	char buf[INET6_ADDRSTRLEN];
	const char *scope = memchr(s, '%', n);
	struct in6_addr ip;
	uint64_t id;
	const char *why;

	if (scope != NULL) {
		char digits_only[12];
		size_t m = n - (size_t)(scope - s) - 1;

		if (m >= sizeof(digits_only))
			return false;
		memcpy(digits_only, scope + 1, m);
		digits_only[m] = '\0';
		if (conf_number(digits_only, &id, &why) != 0 || id > UINT32_MAX)
			return false;
		n = (size_t)(scope - s);
	}
	if (n >= sizeof(buf))
		return false;
	memcpy(buf, s, n);
	buf[n] = '\0';
	return inet_pton(AF_INET6, buf, &ip) == 1;
}

static bool
is_ip4(const char *s, size_t n)
{
	char buf[INET_ADDRSTRLEN];
	struct in_addr ip;

	if (n >= sizeof(buf))
		return false;
	memcpy(buf, s, n);
	buf[n] = '\0';
	return inet_pton(AF_INET, buf, &ip) == 1;
}

bool
conf_is_ip(const char *s)
{
	return is_ip4(s, strlen(s)) || is_ip6(s, strlen(s));
}

bool
conf_is_ip_port(const char *s)
{
	const char *colon = strrchr(s, ':'), *why;
	uint64_t port;
	size_t n;

	if (colon == NULL)
		return false;
	n = (size_t)(colon - s);
	if (conf_number(colon + 1, &port, &why) != 0 || port < 1 || port > 65535 ||
	    (colon[1] == '0'))
		return false;
	if (s[0] == '[')
		return n > 2 && s[n - 1] == ']' && is_ip6(s + 1, n - 2);
	return is_ip4(s, n);
}
