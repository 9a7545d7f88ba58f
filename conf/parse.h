/* SPDX-License-Identifier: MIT */
/* parse.h - the text of an options file: lines, words, sizes, durations.
 *
 *	# comment			; comment
 *	[section]
 *	name = value			# comment, after a blank
 *	name = "a value; quoted \" \\"
 *	list = one, "two, 2", three
 *
 * Nothing here knows an option.  Texts are borrowed slices of the input; columns count
 * bytes from 1. */
#ifndef CONF_PARSE_H
#define CONF_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONF_FILE_MAX	(1u << 20)	/* bytes of an options file */
#define CONF_LINE_MAX	16384u		/* bytes of one line */
#define CONF_WORD_MAX	4096u		/* bytes of one value and its end */

enum conf_line_kind { CONF_LINE_BLANK, CONF_LINE_SECTION, CONF_LINE_OPTION };

struct conf_line {
	enum conf_line_kind kind;
	const char *name;		/* of the section or option */
	size_t	    name_n;
	unsigned    name_col;
	const char *value;		/* option: the rest of the line */
	size_t	    value_n;
	unsigned    value_col;
};

/* Cut one line (@n bytes, no newline).  0; or -EINVAL, *why static text, and *col where. */
int	conf_line_cut(const char *line, size_t n, struct conf_line *out,
	    unsigned *col, const char **why);

/* Walks the words of a value. */
struct conf_words {
	const char *start, *p, *end;
	bool	    list;		/* commas separate */
	bool	    comments;		/* # and ; after a blank end the value */
	bool	    begun;
};
void	conf_words_init(struct conf_words *w, const char *value, size_t n,
	    bool list, bool comments);
/* Next word into @out (CONF_WORD_MAX bytes), terminated; *off is where it began in the
 * value.  1; 0 when there are no more (a value that is no list has exactly one, perhaps
 * empty); -EINVAL, *why and *off. */
int	conf_words_next(struct conf_words *w, char *out, size_t *off,
	    const char **why);

/* One number, all of @s.  0, or -EINVAL and *why. */
int	conf_number(const char *s, uint64_t *out, const char **why);
int	conf_bytes(const char *s, uint64_t *out, const char **why);
int	conf_time(const char *s, uint64_t *out_ms, const char **why);
int	conf_percent(const char *s, uint64_t *out, const char **why);
int	conf_flag(const char *s, bool *out, const char **why);
/* "10.0.0.1:7700" or "[fe80::1%2]:7700", port 1..65535; "10.0.0.1" or "fe80::1". */
bool	conf_is_ip_port(const char *s);
bool	conf_is_ip(const char *s);

#define CONF_NUMBER_TEXT 32u
/* The shortest exact text, which parses back to @v. */
void	conf_bytes_text(uint64_t v, char out[CONF_NUMBER_TEXT]);
void	conf_time_text(uint64_t ms, char out[CONF_NUMBER_TEXT]);

#endif
