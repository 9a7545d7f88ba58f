/* SPDX-License-Identifier: MIT */
/* fuzz_conf.c - options files from a careless hand.
 *
 *	fuzz_conf		N (5000) inputs made from tests/conf/N.in, SEED (1)
 *	fuzz_conf FILE ...	each file as it is
 *
 * What is taken must print, and parse again to the same; what is refused must change
 * nothing and say where it is wrong. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/conf.h"
#include "conf/err.h"
#include "conf/rand.h"

#define INPUT_MAX	65536u
#define CORPUS_MAX	200u

static struct {
	char  *p;
	size_t n;
} corpus[CORPUS_MAX];
static unsigned corpus_n;
static unsigned long taken;		/* inputs that were understood */

static char *
printed(const struct conf *c)
{
	char *text = NULL;
	size_t n;
	FILE *f = open_memstream(&text, &n);

	assert(f != NULL);
	conf_print(c, f);
	fclose(f);
	return text;
}

static void
try_text(const char *in, size_t n)
{
	struct conf c, again;
	char err[CONF_ERR_MAX] = "", *before, *after, *second;
	int rc;

	assert(conf_init(&c) == 0 && conf_init(&again) == 0);
	before = printed(&c);
	rc = conf_parse(&c, "f", in, n, err);
	after = printed(&c);
	if (rc == 0) {
		taken++;
		assert(conf_parse(&again, "p", after, strlen(after), err) == 0);
		second = printed(&again);
		assert(strcmp(after, second) == 0);
		free(second);
	} else {
		assert(rc == ERR_CONFIG);
		assert(strncmp(err, "f:", 2) == 0 && strlen(err) > 5);
		assert(strcmp(before, after) == 0);
	}
	free(before);
	free(after);
	conf_fini(&c);
	conf_fini(&again);
}

static size_t
read_all(const char *path, char *buf)
{
	FILE *f = fopen(path, "r");
	size_t n;

	if (f == NULL)
		return 0;
	n = fread(buf, 1, INPUT_MAX, f);
	fclose(f);
	return n;
}

static void
read_corpus(void)
{
	static char buf[INPUT_MAX];
	char path[64];

	for (unsigned i = 1; i < CORPUS_MAX; i++) {
		size_t n;

		snprintf(path, sizeof(path), "tests/conf/%u.in", i);
		if ((n = read_all(path, buf)) == 0 || n > 8000)
			continue;
		corpus[corpus_n].p = malloc(n);
		assert(corpus[corpus_n].p != NULL);
		memcpy(corpus[corpus_n].p, buf, n);
		corpus[corpus_n++].n = n;
	}
	assert(corpus_n > 0);
}

/* Pieces of several files, one after the other, and then a few bytes of dirt. */
static size_t
make(struct rand *r, char *out)
{
	static const char dirt[] = "\n\"\\[]=#,; \t\r.%09aKMiB\x80";
	size_t n = 0;

	for (uint64_t pieces = 1 + rand_below(r, 3); pieces > 0; pieces--) {
		unsigned i = (unsigned)rand_below(r, corpus_n);
		size_t at = rand_chance(r, 1, 2) ? 0 :
		    rand_below(r, corpus[i].n);
		size_t len = corpus[i].n - at;

		memcpy(out + n, corpus[i].p + at, len);
		n += len;
	}
	for (uint64_t k = rand_below(r, 6); k > 0 && n > 0; k--)
		out[rand_below(r, n)] = rand_chance(r, 1, 4) ? (char)rand_u64(r) :
		    dirt[rand_below(r, sizeof(dirt))];
	return n;
}

int
main(int argc, char **argv)
{
	static char in[INPUT_MAX];
	const char *n_text = getenv("N"), *seed_text = getenv("SEED");
	unsigned long n = n_text != NULL && *n_text ? strtoul(n_text, NULL, 10) : 0;
	uint64_t seed = seed_text != NULL ? strtoull(seed_text, NULL, 10) : 0;
	struct rand r;

	for (int i = 1; i < argc; i++)
		try_text(in, read_all(argv[i], in));
	if (argc > 1)
		return 0;
	if (n < 5000)
		n = 5000;
	rand_seed(&r, seed != 0 ? seed : 1);
	read_corpus();
	for (unsigned long i = 0; i < n; i++) {
		size_t len = make(&r, in);
		char *exact = malloc(len + 1);

		assert(exact != NULL);
		memcpy(exact, in, len);
		try_text(exact, len);
		free(exact);
	}
	while (corpus_n > 0)
		free(corpus[--corpus_n].p);
	printf("%lu inputs, %lu understood: passed, 0 failed\n", n, taken);
	return 0;
}
