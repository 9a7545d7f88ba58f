# fsd - make | deps | check | asan | bench | lint | install | clean
#   T=name  run the tests whose name has it     SEED=n  one seed     N=n  so many seeds
#   DESTDIR= PREFIX=/usr/local  where install puts things
CC	?= cc
CFLAGS	?= -O2 -g
B	?= build
STATIC	?= -static
T	?= test_
PREFIX	?= /usr/local
DESTDIR	?=
WARN	 = -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -Wshadow \
	   -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wswitch-enum
DEFS	 = -DFUSE_USE_VERSION=314
LIBS	 = -lfuse3 -llmdb -luring -lmsgpackc -lsodium -lxxhash -luv -lpthread -ldl -lrt
ifneq ($(STATIC),)
LIBS	:= $(LIBS:-luv=-luv_a)
endif
LAYERS	 = conf net chunk meta roles
LIB	:= $(patsubst %.c,$(B)/%.o,$(wildcard $(LAYERS:%=%/*.c)))
SIM	:= $(patsubst %.c,$(B)/%.o,$(wildcard tests/sim/*.c))
TESTS	:= $(sort $(patsubst %.c,$(B)/%,$(wildcard tests/test_*.c)))
BENCHES	:= $(patsubst %.c,$(B)/%,$(wildcard tests/bench_*.c))
FUZZERS	:= $(patsubst %.c,$(B)/%,$(wildcard tests/fuzz_*.c))
RUN	 = $(foreach t,$(TESTS),$(if $(findstring $(T),$t),$t))

all: $(B)/fsd
$(B)/fsd: $(B)/fsd.o $(B)/libfsd.a
	$(CC) $(STATIC) $(LDFLAGS) -o $@ $^ $(LIBS)
$(B)/libfsd.a: $(LIB)
	@rm -f $@
	ar crs $@ $^
$(B)/libsim.a: $(SIM)
	@rm -f $@
	ar crs $@ $^
$(B)/tests/test_%: $(B)/tests/test_%.o $(B)/libsim.a $(B)/libfsd.a
	$(CC) $(STATIC) $(LDFLAGS) -o $@ $^ -lcheck -lsubunit -lm $(LIBS)
$(B)/tests/bench_%: $(B)/tests/bench_%.o $(B)/libsim.a $(B)/libfsd.a
	$(CC) $(STATIC) $(LDFLAGS) -o $@ $^ $(LIBS)
$(B)/tests/fuzz_%: $(B)/tests/fuzz_%.o $(B)/libsim.a $(B)/libfsd.a
	$(CC) $(STATIC) $(LDFLAGS) -o $@ $^ $(LIBS)
$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(WARN) $(CFLAGS) $(DEFS) -I. -MMD -MP -c -o $@ $<

check: $(RUN)
	@[ -n "$(RUN)" ] || { echo "no test matches T=$(T)"; exit 1; }
	@for t in $(RUN); do SEED=$(SEED) N=$(N) $$t || exit 1; done
asan:
	$(MAKE) check B=build/asan STATIC= CFLAGS="-O1 -g -fsanitize=address,undefined" \
	    LDFLAGS=-fsanitize=address,undefined
lint:	# the include arrows, then the manual pages
	@! grep -n '#include "\(net\|chunk\|meta\|roles\)/'  conf/*.[ch]
	@! grep -n '#include "\(chunk\|meta\|roles\)/'       net/*.[ch]
	@! grep -n '#include "\(meta\|roles\)/'              chunk/*.[ch]
	@! grep -n '#include "\(chunk\|roles\)/'             meta/*.[ch]
	mandoc -Tlint -Wwarning man/*.[1-8]
clean:
	rm -rf $(B)
.PHONY: all check asan lint clean
.SECONDARY:
-include $(shell find $(B) -name '*.d' 2>/dev/null)
