# fsd - make | deps | up | test | check | asan | model | planted | bench | bench-failover | bench-resync | bench-incast | bench-rdma | cluster | check-rdma | lint | install | clean
#   T=name  run the tests whose name has it     SEED=n  one seed     N=n  so many seeds
#   DIR=/var/tmp/fsd MOUNT=/3fs  where `make up` keeps and mounts its cluster
#   DESTDIR= PREFIX=/usr/local  where install puts things
CC	?= cc
CFLAGS	?= -O3 -g
B	?= build
STATIC	?= -static
T	?=
DIR	?= /var/tmp/fsd
MOUNT	?= /3fs
PREFIX	?= /usr/local
DESTDIR	?=
# Texts for people are cut to size on purpose.  GCC 12 moves loads of the head of a list out of
# loops that change the list, when it reasons by types: see git log.
WARN	 = -std=c11 -fno-strict-aliasing -D_GNU_SOURCE -Wall -Wextra -Werror -Wshadow \
	   -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wswitch-enum \
	   -Wno-format-truncation
DEFS	 = -DFUSE_USE_VERSION=314
# A static program takes all providers of devices along.
VERBS	 = -Wl,--start-group -libverbs -lmlx5 -lmlx4 -lbnxt_re-rdmav34 -lcxgb4-rdmav34 -lefa \
	   -lerdma-rdmav34 -lhfi1verbs-rdmav34 -lhns-rdmav34 -lipathverbs-rdmav34 \
	   -lirdma-rdmav34 -lmana -lmthca-rdmav34 -locrdma-rdmav34 -lqedr-rdmav34 -lrxe-rdmav34 \
	   -lsiw-rdmav34 -lvmw_pvrdma-rdmav34 -lnl-route-3 -lnl-3 -Wl,--end-group
LIBS	 = -lfuse3 -llmdb -luring -lmsgpackc -lsodium -lxxhash -luv -lrdmacm -libverbs -lpthread -ldl -lrt
ifneq ($(STATIC),)
LIBS	:= $(LIBS:-luv=-luv_a)
LIBS	:= $(LIBS:-libverbs=$(VERBS))
DEFS	+= -DRDMA_STATIC_PROVIDERS=all
endif
PACKAGES = gcc libc6-dev libfuse3-dev fuse3 liblmdb-dev liburing-dev libmsgpack-dev \
	   libsodium-dev libxxhash-dev libuv1-dev libibverbs-dev librdmacm-dev \
	   libnl-3-dev libnl-route-3-dev
PACKAGES_TEST = check libsubunit-dev mandoc fio sqlite3 git procps python3 spin iproute2 \
	   qemu-system-x86 busybox-static xz-utils e2fsprogs perftest
LAYERS	 = conf net chunk meta roles
LIB	:= $(patsubst %.c,$(B)/%.o,$(wildcard $(LAYERS:%=%/*.c)))
MAIN	:= $(patsubst %.c,$(B)/%.o,$(wildcard fsd*.c))
SIM	:= $(patsubst %.c,$(B)/%.o,$(wildcard tests/sim/*.c))
TESTS	:= $(sort $(patsubst %.c,$(B)/%,$(wildcard tests/test_*.c)))
VERBS_O := $(patsubst %.c,$(B)/%.o,$(wildcard tests/verbs/*.c))
# Tests of calls once more, over verbs of devices that are not there.
TESTS	+= $(patsubst %,$(B)/tests/verbs_%,call call_fail call_grant call_mix call_revoke)
BENCHES	:= $(sort $(patsubst %.c,$(B)/%,$(wildcard tests/bench_*.c)))
FUZZERS	:= $(sort $(patsubst %.c,$(B)/%,$(wildcard tests/fuzz_*.c)))
RUN	 = $(foreach t,$(TESTS) $(FUZZERS),$(if $(T),$(if $(findstring $(T),$t),$t),$t))
# Two run at a time: the long ones begin first, so that none is left alone at the end.
LONG_ONES = test_sim verbs_call_fail test_metadata_group test_storage_chain test_call_fail \
	   test_call_mix test_pace test_log_any failover.sh dev.sh check.sh roles.sh ha.sh
longest	 = $(foreach l,$(LONG_ONES),$(filter %/$l,$1)) $(filter-out $(LONG_ONES:%=\%/%),$1)

# The linker warns of look-ups in libuv, libfuse and libnl that need shared libraries: we call
# none of them.  Its own way to keep quiet hides errors too.
LINK	 = $(CC) $(STATIC) $(LDFLAGS) -o $@ $^ $(1) $(LIBS) 2>$@.said || \
	   { grep -v "warning: Using\|: in function" $@.said >&2; rm -f $@.said; exit 1; }; \
	   rm -f $@.said

all: $(B)/fsd
$(B)/fsd: $(MAIN) $(B)/libfsd.a
	@$(call LINK)
$(B)/libfsd.a: $(LIB)
	@rm -f $@
	@ar crs $@ $^
$(B)/libsim.a: $(SIM)
	@rm -f $@
	@ar crs $@ $^
$(B)/tests/test_%: $(B)/tests/test_%.o $(B)/libsim.a $(B)/libfsd.a
	@$(call LINK,-lcheck -lsubunit -lm)
FAKED	= $(patsubst %,$(B)/tests/test_%,rdma rdma_many rdma_qp rdma_ways)
$(FAKED): $(VERBS_O)
$(FAKED) $(B)/tests/verbs_%: override LDFLAGS += -Wl,--allow-multiple-definition
$(B)/tests/verbs_%: $(B)/tests/test_%.o $(VERBS_O) $(B)/libsim.a $(B)/libfsd.a
	@$(call LINK,-lcheck -lsubunit -lm)
$(B)/tests/bench_%: $(B)/tests/bench_%.o $(B)/libsim.a $(B)/libfsd.a
	@$(call LINK)
$(B)/tests/fuzz_%: $(B)/tests/fuzz_%.o $(B)/libsim.a $(B)/libfsd.a
	@$(call LINK)
$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(WARN) $(CFLAGS) $(DEFS) -I. -MMD -MP -c -o $@ $<

# What building and running needs; asks apt only for what is missing.
deps:
	@tests/deps.sh $(PACKAGES)
deps-test: deps
	@tests/deps.sh $(PACKAGES_TEST)
# A replicated cluster on this machine, mounted.
up: deps
	@$(MAKE) -s -j2 all
	@mkdir -p $(DIR) $(MOUNT)
	@$(B)/fsd dev $(DIR) $(MOUNT)

# Everything: what CI runs.
test: deps-test
	@$(MAKE) -s -j2 all
	@tests/run.sh $(B)
check: $(TESTS) $(FUZZERS)
	@[ -n "$(RUN)" ] || { echo "no test matches T=$(T)"; exit 1; }
	@SEED=$(SEED) N=$(N) tests/check.sh $(call longest,$(RUN))
asan:
	$(MAKE) check B=build/asan STATIC= CFLAGS="-O1 -g -fsanitize=address,undefined" \
	    LDFLAGS=-fsanitize=address,undefined
# Chain replication, leases and the replicated log as models, all states; each guard matters.
model:
	@tests/model/run.sh $(T)
# Bugs that the simulations must catch, one after the other.
planted:
	@B=$(B) N=$(N) SEED=$(SEED) tests/sim/planted/run.sh $(T)
# More simulated clusters: make soak N=20000 FIRST=100000
soak: $(B)/tests/test_sim
	@N=$(or $(N),10000) FIRST=$(or $(FIRST),100000) $(B)/tests/test_sim
# Real processes and mounts.
cluster: all
	@B=$(B) tests/check.sh $(call longest,$(sort $(wildcard tests/cluster/[a-z]*.sh)))
# Calls, clusters and mounts over verbs, in a guest that has them (tests/vm).
check-rdma: all $(B)/tests/test_call $(B)/tests/test_call_fail \
    $(B)/tests/test_call_revoke $(B)/tests/test_call_grant $(B)/tests/test_rdma_iw
	@B=$(B) T=$(T) tests/vm/check.sh
bench: all $(BENCHES)
	@tests/bench.sh $(B)
# What programs notice when parts of a cluster fail: pauses, errors, losses.
bench-failover: all
	@B=$(B) tests/bench_failover.sh
# How fast a lost replica is back, alone and beside programs, and what these lose by it.
bench-resync: all
	@B=$(B) tests/bench_resync.sh
# One client and 16 storage nodes, then 64 clients and one: what is lost, who gets how much.
bench-incast: all $(B)/tests/bench_crowd
	@B=$(B) tests/bench_incast.sh
# What we make of verbs beside what ib_send_lat and its like do, in a guest.
bench-rdma: all
	@B=$(B) tests/vm/bench.sh
lint: all	# the include arrows, libraries behind their wrappers, drivers, the manual pages
	@! grep -n '#include "\(net\|chunk\|meta\|roles\)/'  conf/*.[ch]
	@! grep -n '#include "\(chunk\|meta\|roles\)/'       net/*.[ch]
	@! grep -n '#include "\(meta\|roles\)/'              chunk/*.[ch]
	@! grep -n '#include "\(chunk\|roles\)/'             meta/*.[ch]
	@! grep -ln '#include <uv.h>' $(LAYERS:%=%/*.[ch]) | grep -v '^net/\(loop\|tcp\).c'
	@! grep -ln '#include <lmdb.h>' $(LAYERS:%=%/*.[ch]) | grep -v '^conf/table_lmdb'
	@! grep -ln '#include <liburing.h>' $(LAYERS:%=%/*.[ch]) | grep -v '^chunk/disk_uring'
	@[ -z "$(STATIC)" ] || for p in all mlx5 rxe siw efa irdma bnxt_re hns; do \
	    nm $(B)/fsd | grep -q " verbs_provider_$$p$$" || \
	    { echo "fsd carries no provider of $$p"; exit 1; }; done
	mandoc -Tlint -Wwarning man/*.[1-8]
	@B=$(B) tests/man.sh
install: all
	install -D -m 755 $(B)/fsd $(DESTDIR)$(PREFIX)/bin/fsd
	for p in man/*.[1-8]; do install -D -m 644 $$p \
	    $(DESTDIR)$(PREFIX)/share/man/man$${p##*.}/$${p##*/} || exit 1; done
clean:
	rm -rf $(B)
.PHONY: all soak deps deps-test up test check asan model planted cluster check-rdma bench bench-failover bench-resync bench-incast bench-rdma lint install clean
.SECONDARY:
-include $(shell find $(B) -name '*.d' 2>/dev/null)
