/* SPDX-License-Identifier: MIT */
/* err.c - texts, names and advice, all from the rows of err.h. */
#include "conf/err.h"

#include <errno.h>
#include <string.h>

const char *
err_text(int rc)
{
	const char *s;

	if (rc == 0)
		return "ok";
	switch (rc) {
#define X(name, code, next, text) case name: return text;
	ERR_TABLE(X)
#undef X
	default:
		break;
	}
	if (rc > -4096 && rc < 0 && (s = strerrordesc_np(-rc)) != NULL)
		return s;
	return "unknown error";
}

const char *
err_name(int rc)
{
	const char *s;

	if (rc == 0)
		return "OK";
	switch (rc) {
#define X(name, code, next, text) case name: return #name;
	ERR_TABLE(X)
#undef X
	default:
		break;
	}
	if (rc > -4096 && rc < 0 && (s = strerrorname_np(-rc)) != NULL)
		return s;
	return "UNKNOWN";
}

enum err_next
err_next(int rc)
{
	switch (rc) {
#define X(name, code, next, text) case name: return ERR_NEXT_##next;
	ERR_TABLE(X)
#undef X
	case -ECONNREFUSED: case -ECONNRESET: case -EPIPE: case -ETIMEDOUT:
	case -EHOSTUNREACH: case -ENETUNREACH: case -ENOTCONN:
		return ERR_NEXT_REFRESH;
	default:
		return ERR_NEXT_FAIL;
	}
}

int
err_errno(int rc)
{
	if (rc >= 0)
		return 0;
	switch (rc) {
	case ERR_BUSY:
		return EAGAIN;
	case ERR_STALE_EPOCH:
		return ESTALE;
	default:
		break;
	}
	/* Rows of the table mean nothing to an application but "failed". */
	return rc > -2000 ? -rc : EIO;
}
