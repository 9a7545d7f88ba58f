/* SPDX-License-Identifier: MIT */
/* once.c - results of changes by (client, seq). */
#include "meta/once.h"

#include <assert.h>
#include <errno.h>

#include "conf/bytes.h"
#include "conf/err.h"
#include "meta/key.h"

#define FORMAT	1u

static int
low_get(struct table *t, const struct uid128 *client, uint64_t *low)
{
	uint8_t k[KEY_ONCE_LEN];
	struct bytes_reader r;
	const void *row;
	size_t len;
	int rc;

	*low = 0;
	rc = table_get(t, k, key_once(k, client, 0), &row, &len);
	if (rc == -ENOENT)
		return 0;
	if (rc != 0)
		return rc;
	bytes_reader_init(&r, row, len);
	if (bytes_get_u8(&r) != FORMAT)
		return ERR_LOG_DAMAGED;
	*low = bytes_get_u64(&r);
	return bytes_reader_done(&r) ? 0 : ERR_LOG_DAMAGED;
}

static int
low_put(struct table *t, const struct uid128 *client, uint64_t low)
{
	uint8_t k[KEY_ONCE_LEN], row[9];
	struct bytes_writer w;

	bytes_writer_init(&w, row, sizeof(row));
	bytes_put_u8(&w, FORMAT);
	bytes_put_u64(&w, low);
	return table_put(t, k, key_once(k, client, 0), row, sizeof(row));
}

int
once_get(struct table *t, const struct msg_ctx *who, uint64_t *low,
    const void **result, size_t *len)
{
	uint8_t k[KEY_ONCE_LEN];
	const void *row;
	size_t n;
	int rc;

	assert(who->seq != 0);
	if ((rc = low_get(t, &who->client, low)) != 0)
		return rc;
	if (who->seq <= *low)
		return -ECANCELED;
	rc = table_get(t, k, key_once(k, &who->client, who->seq), &row, &n);
	if (rc != 0)
		return rc;
	if (n < 1 || *(const uint8_t *)row != FORMAT)
		return ERR_LOG_DAMAGED;
	*result = (const uint8_t *)row + 1;
	*len = n - 1;
	return 0;
}

/* Delete records with low < seq <= done, at most @max; *low moves up behind them. */
static int
drop(struct table *t, const struct uid128 *client, uint64_t *low, uint64_t done,
    unsigned max)
{
	uint8_t k[KEY_ONCE_LEN];

	while (max-- > 0) {
		const void *key, *row;
		size_t key_len, len;
		uint64_t seq;
		int rc;

		rc = table_seek(t, k, key_once(k, client, *low), true,
		    KEY_CLIENT_LEN, &key, &key_len, &row, &len);
		if (rc != 0 && rc != -ENOENT)
			return rc;
		if (rc == 0 && key_len != KEY_ONCE_LEN)
			return ERR_LOG_DAMAGED;
		seq = rc == 0 ? bytes_from_be64((const uint8_t *)key +
		    KEY_CLIENT_LEN) : UINT64_MAX;
		if (seq > done) {	/* numbers without a record count, too */
			*low = done;
			return 0;
		}
		*low = seq;
		rc = table_del(t, k, key_once(k, client, seq));
		if (rc != 0)
			return rc;
	}
	return 0;
}

int
once_put(struct table *t, const struct msg_ctx *who, uint64_t low,
    const void *result, size_t len)
{
	uint8_t k[KEY_ONCE_LEN], row[1 + ONCE_RESULT_MAX];
	uint64_t done = who->done < who->seq ? who->done : who->seq - 1;
	int rc;

	assert(len <= ONCE_RESULT_MAX);
	row[0] = FORMAT;
	memcpy(row + 1, result, len);
	rc = table_put(t, k, key_once(k, &who->client, who->seq), row, 1 + len);
	if (rc != 0 || done < low || done - low < ONCE_DROP_LAG)
		return rc;
	if ((rc = drop(t, &who->client, &low, done, ONCE_DROP_MAX)) != 0)
		return rc;
	return low_put(t, &who->client, low);
}

int
once_drop(struct table *t, const struct uid128 *client, unsigned max, bool *more)
{
	uint8_t k[KEY_ONCE_LEN];
	uint64_t low = 0;
	int rc;

	if ((rc = drop(t, client, &low, UINT64_MAX, max)) != 0)
		return rc;
	*more = low != UINT64_MAX;
	/* The mark goes last: until then old copies are recognised. */
	if (*more)
		return low_put(t, client, low);
	return table_del(t, k, key_once(k, client, 0));
}

int
once_next_client(struct table *t, const struct uid128 *after, struct uid128 *out)
{
	static const struct uid128 none;
	uint8_t k[KEY_ONCE_LEN];
	const void *key, *row;
	size_t n, key_len, len;
	int rc;

	n = key_once(k, after != NULL ? after : &none,
	    after != NULL ? UINT64_MAX : 0);
	rc = table_seek(t, k, n, after != NULL, 1, &key, &key_len, &row, &len);
	if (rc != 0)
		return rc;
	if (key_len != KEY_ONCE_LEN)
		return ERR_LOG_DAMAGED;
	memcpy(out->b, (const uint8_t *)key + 1, sizeof(out->b));
	return 0;
}
