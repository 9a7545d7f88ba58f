/* SPDX-License-Identifier: MIT */
/* err.h - one int everywhere: 0, -errno, or a row of this table.  A row says what
 * the caller may do next.  Codes are part of the wire protocol: never reuse. */
#ifndef CONF_ERR_H
#define CONF_ERR_H

/* What a caller may do about an error. */
enum err_next {
	ERR_NEXT_FAIL,		/* report it */
	ERR_NEXT_RETRY,		/* same request, same place, after a pause */
	ERR_NEXT_REFRESH,	/* fetch routing, then again */
	ERR_NEXT_OTHER,		/* another replica or server may answer */
	ERR_NEXT_HALT		/* our own state is damaged: stop using it */
};

/*        name                 code   next     text */
#define ERR_TABLE(X) \
	X(ERR_STALE_CHAIN,     -2001, REFRESH, "chain version is not current") \
	X(ERR_NOT_OWNER,       -2002, REFRESH, "this server does not own that target or group") \
	X(ERR_CHAIN_RECOVERING,-2003, REFRESH, "chain changes; again in a moment") \
	X(ERR_CORRUPT,         -2004, OTHER,   "stored bytes fail their checksum") \
	X(ERR_BUSY,            -2005, RETRY,   "over a limit; retry after a pause") \
	X(ERR_NO_LEASE,        -2006, REFRESH, "server holds no lease") \
	X(ERR_STALE_EPOCH,     -2007, FAIL,    "file was truncated; fetch its attributes") \
	X(ERR_BAD_MESSAGE,     -2008, FAIL,    "message does not parse") \
	X(ERR_BAD_METHOD,      -2009, FAIL,    "no such call here") \
	X(ERR_PAYLOAD_CRC,     -2010, RETRY,   "payload fails its checksum") \
	X(ERR_VERSION_GAP,     -2011, RETRY,   "chunk version does not follow") \
	X(ERR_DISK_FOREIGN,    -2012, FAIL,    "not an fsd disk") \
	X(ERR_DISK_NEWER,      -2013, FAIL,    "disk was written by a newer fsd") \
	X(ERR_DISK_DAMAGED,    -2014, HALT,    "disk label or index is damaged") \
	X(ERR_AUTH,            -2015, FAIL,    "peer does not hold the cluster key") \
	X(ERR_WIRE_VERSION,    -2016, FAIL,    "peer speaks another wire version") \
	X(ERR_NOT_LEADER,      -2017, REFRESH, "not the leader of this group") \
	X(ERR_STALE_NODE,      -2018, FAIL,    "node was registered again by another process") \
	X(ERR_NO_CHAINS,       -2019, RETRY,   "no chain table yet") \
	X(ERR_SESSION,         -2020, REFRESH, "unknown client session") \
	X(ERR_STOPPING,        -2021, OTHER,   "server is stopping") \
	X(ERR_LOG_DAMAGED,     -2022, HALT,    "log is damaged before its end") \
	X(ERR_CONFIG,          -2023, FAIL,    "bad configuration") \
	X(ERR_NAME_TAKEN,      -2024, FAIL,    "another node that is up has this name")

enum {
#define X(name, code, next, text) name = code,
	ERR_TABLE(X)
#undef X
	ERR_TABLE_END = -2999
};

/* Text of a code ("ok" for 0, strerror for -errno); static, never NULL. */
const char	*err_text(int rc);
/* Name of a code ("ERR_BUSY", "ENOENT"); static, never NULL. */
const char	*err_name(int rc);
/* What the caller may do.  Connection errors (-ECONNREFUSED, -ECONNRESET,
 * -EPIPE, -ETIMEDOUT, -EHOSTUNREACH, -ENETUNREACH, -ENOTCONN, -ECANCELED excepted)
 * give REFRESH; every other errno FAIL. */
enum err_next	 err_next(int rc);
/* The errno (positive) an application gets to see for @rc. */
int		 err_errno(int rc);

#endif
