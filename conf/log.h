/* SPDX-License-Identifier: MIT */
/* log.h - one line per event: "role: what changed key=value ...".
 *
 *	log_info(s->log, "target up", "target=%u chain=%u", target, chain);
 *
 * A struct log names the speaker ("storage3", "metadata") and where lines go.  The
 * simulator hands in a sink of its own, which makes log lines its trace.  Safe to
 * use from several threads with the stderr sink. */
#ifndef CONF_LOG_H
#define CONF_LOG_H

#include <stdarg.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

struct log {
	char	       who[32];
	enum log_level level;		/* lines above this are dropped */
	/* NULL: stderr, text or JSON as set by log_format(). @fields may be "". */
	void	     (*sink)(void *ctx, enum log_level, const char *who,
			 const char *what, const char *fields);
	void	      *ctx;
};

void	log_init(struct log *l, const char *who);
/* Process-wide form of the stderr sink. */
void	log_format_json(int on);
void	log_write(const struct log *l, enum log_level level, const char *what,
	    const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* @l may be NULL: dropped. Always give a format; "" is said as "%s", "". */
#define log_at(l, lv, ...) \
	do { \
		if ((l) != NULL && (l)->level >= (lv)) \
			log_write((l), (lv), __VA_ARGS__); \
	} while (0)
#define log_error(l, ...) log_at(l, LOG_ERROR, __VA_ARGS__)
#define log_warn(l, ...)  log_at(l, LOG_WARN, __VA_ARGS__)
#define log_info(l, ...)  log_at(l, LOG_INFO, __VA_ARGS__)
#define log_debug(l, ...) log_at(l, LOG_DEBUG, __VA_ARGS__)

#endif
