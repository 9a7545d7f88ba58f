/* SPDX-License-Identifier: MIT */
/* bench_raw.h - what the system alone can do, for `fsd bench` to print beside its figures. */
#ifndef ROLES_BENCH_RAW_H
#define ROLES_BENCH_RAW_H

enum bench_raw { RAW_WRITE, RAW_READ, RAW_RANDREAD, RAW_STREAM, RAW_N };

/* Bytes per second of io_uring, O_DIRECT, on a file in @where, which is removed again. Blocks
 * for some seconds, and prints them.  0 or -errno. */
int	bench_raw_disk(const char *where, double raw[RAW_STREAM]);
/* Bytes per second of a stream over loopback that one thread writes and another reads, 1 MiB
 * at a time, and processor seconds of both per GiB.  Blocks for half a second. 0 or -errno. */
int	bench_raw_stream(double *bytes_s, double *cpu_s_gib);

#endif
