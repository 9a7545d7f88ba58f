/* SPDX-License-Identifier: MIT */
/* conf.h - options as rows: name, type, unit, default, bounds, when a change counts.
 * One fsd.conf serves all boxes of a cluster:
 *
 *	[manager]
 *	addresses = 10.0.0.1:7700, 10.0.0.2:7700
 *	lease = 3s
 *
 * From the rows come struct conf, the parser, `fsd --print-config`, `fsd help options` and
 * the table of fsd.conf(5).  Wrong section, option, type, unit, range, a duplicate or an
 * unreadable file is an error that names file, line and reason. */
#ifndef CONF_CONF_H
#define CONF_CONF_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Types: text (string), list (comma-separated strings), number, bytes (4KiB, 10GB ...),
 * time (ms, s, min, h; kept in ms), percent (0..100), flag (yes, no), enum (of the words
 * in the default column after a colon).
 *    section   name              type     default          min      max      live help */
#define CONF_OPTIONS(X) \
	X(cluster,  name,             text,    "fsd",           0, 63,            0, "name of the cluster; the mount shows it") \
	X(cluster,  key_file,         text,    "/etc/fsd.key",  1, 4095,          0, "file of 64 hex digits that every member shares, mode 0600") \
	X(cluster,  replicas,         number,  "3",             1, 8,             0, "replicas of every chunk, on distinct nodes") \
	X(cluster,  chunk_size,       bytes,   "1MiB",          65536, 67108864,  1, "chunk size of new files; a power of two") \
	X(cluster,  stripe,           number,  "8",             1, 256,           1, "chains a new file is striped over, at most") \
	X(cluster,  election,         time,    "500ms",         50, 60000,        0, "managers and metadata replicas: without word from the leader for this long, to twice as long, they elect another") \
	X(node,     name,             text,    "",              0, 63,            0, "name of this node, that no other one that is up has for the same role; default: the host name") \
	X(node,     directory,        text,    "/var/lib/fsd",  1, 4095,          0, "state of the roles of this node") \
	X(node,     address,          text,    "127.0.0.1",     1, 45,            0, "IP address others reach this node at; roles listen there") \
	X(manager,  addresses,        list,    "127.0.0.1:7700", 1, 8,            0, "where the managers are, as ip:port") \
	X(manager,  port,             number,  "7700",          0, 65535,         0, "port the manager role listens at; 0: any") \
	X(manager,  beat,             time,    "300ms",         50, 60000,        0, "time between heartbeats") \
	X(manager,  lease,            time,    "3s",            200, 600000,      0, "a node may serve this long after its last answered heartbeat") \
	X(manager,  form_delay,       time,    "300ms",         0, 600000,        1, "wait for more disks this long before making chains") \
	X(manager,  log_size,         bytes,   "64MiB",         1048576, 4294967296, 0, "size of the log file") \
	X(manager,  table_size,       bytes,   "1GiB",          1048576, 1099511627776, 0, "bound of the state table") \
	X(metadata, port,             number,  "7701",          0, 65535,         0, "port the metadata role listens at; 0: any") \
	X(metadata, replicas,         number,  "3",             1, 5,             0, "replicas of the metadata; with fewer metadata nodes the next lower odd number") \
	X(metadata, log_size,         bytes,   "256MiB",        1048576, 68719476736, 0, "size of the log file") \
	X(metadata, table_size,       bytes,   "256GiB",        1048576, 17592186044416, 0, "bound of the state table") \
	X(metadata, inflight_max,     number,  "4096",          1, 65536,         0, "changes in flight; more get a busy answer") \
	X(metadata, flush_size,       bytes,   "8MiB",          65536, 1073741824, 0, "write the table when this much has changed") \
	X(metadata, flush_time,       time,    "1s",            10, 600000,       0, "or this long after the first change") \
	X(metadata, session,          time,    "15s",           1000, 3600000,    0, "a client not heard of for this long loses its open files") \
	X(metadata, cache_ttl,        time,    "1s",            0, 60000,         0, "how long a lone client may cache names and attributes") \
	X(metadata, gc_delay,         time,    "0s",            0, 86400000,      1, "wait this long before chunks of removed files are freed") \
	X(storage,  port,             number,  "7710",          0, 65535,         0, "port of the first loop; loop i listens at port + i; 0: any") \
	X(storage,  disks,            list,    "",              0, 64,            0, "data disks: directories made by fsd disk init") \
	X(storage,  loops,            number,  "1",             1, 64,            0, "event loops (threads); disk i belongs to loop i mod loops") \
	X(storage,  targets_per_disk, number,  "4",             1, 64,            0, "target slots each disk offers") \
	X(storage,  index_size,       bytes,   "16GiB",         1048576, 1099511627776, 0, "bound of the chunk index of one disk") \
	X(storage,  full,             percent, "95",            1, 100,           1, "refuse new data when a disk is this full") \
	X(storage,  memory,           bytes,   "256MiB",        16777216, 1099511627776, 0, "payload buffers of one loop; more requests get a busy answer") \
	X(storage,  buffer_keep,      bytes,   "16MiB",         0, 1099511627776, 0, "free payload buffers kept when none is in use") \
	X(storage,  sync_share,       percent, "30",            1, 100,           1, "part of the bandwidth that a returning replica may take from clients") \
	X(storage,  scrub_time,       time,    "168h",          0, 31536000000,   1, "verify every stored block once in this time; 0: never") \
	X(storage,  scrub_rate,       bytes,   "64MiB",         4096, 1099511627776, 1, "but at most this much a second on one disk") \
	X(net,      connections_max,  number,  "4096",          1, 1000000,       0, "connections of one listener") \
	X(net,      requests_max,     number,  "8192",          1, 1000000,       0, "requests in flight of one listener; a client has its part, and more while as many are free") \
	X(net,      client_requests_max, number, "1024",        1, 1000000,       0, "requests in flight of one connection") \
	X(net,      receive_window,   bytes,   "32MiB",         0, 1099511627776, 0, "reply payload under way to one loop at once; 0: any") \
	X(net,      hello,            time,    "3s",            100, 600000,      0, "a new connection must prove the key within this time") \
	X(net,      payload,          time,    "15s",           100, 600000,      0, "a message or payload must be received within this time") \
	X(net,      idle,             time,    "5min",          1000, 86400000,   0, "close connections unused for this long") \
	X(rdma,     devices,          text,    "",              0, 1023,          0, "RDMA devices to use, \"mlx5_0, mlx5_1:2, 10.1.0.0/16\" (port 2 only; addresses of a subnet only); default: all with an active port; none: TCP only") \
	X(rdma,     credits,          number,  "32",            4, 1024,          0, "messages of 4 KiB each peer may have on the way to us") \
	X(rdma,     traffic_class,   number,  "0",             0, 255,           0, "of packets with a GID, which is all of RoCE: four times their DSCP") \
	X(rdma,     service_level,   number,  "0",             0, 15,            0, "of packets: on InfiniBand that of the subnet manager's, on RoCE over a VLAN the priority") \
	X(rdma,     spin_us,          number,  "100",           0, 100000,        0, "under load, look for what comes this many microseconds before sleeping; 0: never") \
	X(client,   memory,           bytes,   "128MiB",        8388608, 1099511627776, 0, "buffers of one mount: reads in flight and unwritten data; direct writes are counted, large ones twice, and are not held up when all of it is in use") \
	X(client,   buffer_keep,      bytes,   "16MiB",         0, 1099511627776, 0, "free buffers kept when none is in use") \
	X(client,   write_back,       time,    "5s",            0, 3600000,       1, "written data reaches storage after this long at the latest") \
	X(client,   retry,            time,    "0s",            0, 86400000,      1, "give up (EIO) when the cluster does not answer for this long; 0: never") \
	X(client,   call,             time,    "5s",            100, 600000,      1, "deadline of one attempt at a call") \
	X(client,   hedge,            time,    "50ms",          0, 60000,         1, "ask another replica too when a read takes longer than this and than most; 0: never") \
	X(client,   read_ahead,       bytes,   "4MiB",          0, 1073741824,    1, "read ahead of sequential readers") \
	X(log,      level,            enum,    "info:error,warn,info,debug", 0, 0, 1, "how much is logged") \
	X(log,      format,           enum,    "text:text,json", 0, 0,            0, "form of log lines")

struct conf_list {
	char   **v;		/* terminated strings */
	unsigned n;
};
typedef char		*conf_t_text;
typedef struct conf_list conf_t_list;
typedef uint64_t	 conf_t_number;
typedef uint64_t	 conf_t_bytes;
typedef uint64_t	 conf_t_time;		/* ms */
typedef uint64_t	 conf_t_percent;
typedef bool		 conf_t_flag;
typedef unsigned	 conf_t_enum;		/* index of the word */

/* conf->storage_disks, conf->manager_lease (ms) ... */
struct conf {
#define X(section, name, type, dflt, min, max, live, help) \
	conf_t_##type section##_##name;
	CONF_OPTIONS(X)
#undef X
};

#define CONF_ERR_MAX 512u

/* All defaults. 0 or -ENOMEM. */
int	conf_init(struct conf *c);
void	conf_fini(struct conf *c);
/* Read @path over what @c has, and check the whole.  0; or ERR_CONFIG / -errno with
 * "file:line:column: reason" in @err, and @c unchanged. */
int	conf_load(struct conf *c, const char *path, char err[CONF_ERR_MAX]);
/* The same from memory; @file is what errors call it. */
int	conf_parse(struct conf *c, const char *file, const char *text, size_t n,
	    char err[CONF_ERR_MAX]);
/* Set one option from the command line: "storage.loops" "4".  What depends on several
 * options is not checked here, so that their order does not matter: see conf_check(). */
int	conf_set(struct conf *c, const char *name, const char *value,
	    char err[CONF_ERR_MAX]);
/* Rules over several options; after the last conf_set().  0 or ERR_CONFIG. */
int	conf_check(const struct conf *c, char err[CONF_ERR_MAX]);
/* Walk the rows, for tests and documentation: i = 0.. until NULL. */
struct conf_row {
	const char *section, *name, *type, *dflt;
	uint64_t    min, max;
	bool	    live;
	const char *help;
};
const struct conf_row *conf_row_at(unsigned i);
/* Print every option with the value understood; the output parses again to the same. */
void	conf_print(const struct conf *c, FILE *out);
/* The option table, for `fsd help options`; @mdoc: as rows for fsd.conf(5). */
void	conf_help(FILE *out, bool mdoc);

#endif
