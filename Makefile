# The everyday commands, by name. Meson and Ninja do the work.
.DELETE_ON_ERROR:
.DEFAULT_GOAL := release

SEEDS   ?= 1000
SECONDS ?= 300
MINUTES ?= 10
SAN     := -Db_sanitize=address,undefined -Db_lundef=false -Ddebug_checks=true -Dmimalloc=disabled
RELEASE := --buildtype=release -Db_lto=true -Dtests=false

release: build/release/build.ninja ## build/release/bopd and build/release/bop
	ninja -C build/release

demo: release ## three nodes, their leader killed in mid-stream, nothing lost (KEEP=1 leaves them running)
	build/release/bop demo --bopd build/release/bopd $(if $(filter 1,$(KEEP)),--keep)

test: build/test/build.ninja ## all tests, under the address and undefined-behaviour sanitizers
	ninja -C build/test
	scripts/run-tests build/test

test-thread: build/tsan/build.ninja ## the tests of code with threads, and of real nodes, under the thread sanitizer
	ninja -C build/tsan
	scripts/run-tests build/tsan core net aof s3 raft cluster bopd system

test-malloc-long: build/sim/build.ninja ## libbop-malloc under redis, python, gcc and others for minutes
	scripts/deps test
	ninja -C build/sim
	LONG=1 scripts/run-tests build/sim malloc

sim: build/sim/build.ninja ## whole clusters on virtual time, disk and network: SEEDS=1000
	ninja -C build/sim tests/sim/sim
	scripts/run-sim build/sim/tests/sim/sim $(SEEDS)

chaos: build/sim/build.ninja ## real nodes under all faults, mixed at random: MINUTES=10 [SEED=n]; leaves build/chaos/
	scripts/deps test
	ninja -C build/sim bopd bop tests/chaos/chaos_load tests/chaos/chaos_check tests/chaos/chaos_shim.so
	python3 -B tests/chaos/chaos.py build/sim/bopd build/sim/bop build/sim/tests/chaos/chaos_load \
	    build/sim/tests/chaos/chaos_check build/sim/tests/chaos/chaos_shim.so mix \
	    --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) --out build/chaos

model: ## the queues' protocols in every interleaving, within larger bounds than the tests (minutes)
	scripts/deps test
	tests/core/mpmc/model/run_models.py --large

bench: bench-cluster bench-alloc bench-queue bench-kv bench-aof bench-net ## all benchmarks

bench-cluster: release ## a cluster's bars, with etcd and ZooKeeper beside us
	scripts/deps bench
	bench/cluster

bench-alloc: release ## malloc's time, and what is held after all is freed, beside those of Debian
	scripts/deps bench
	bench/alloc

bench-queue: release ## queues between threads, beside those of Debian
	scripts/deps bench
	bench/queue

bench-kv: release ## the key-value store, beside LMDB itself
	bench/kv

bench-net: release ## HTTP and WebSocket servers, beside nginx, h2o, libwebsockets and the limit of epoll
	scripts/deps bench
	bench/network

bench-aof: release ## the append-only log, beside RocksDB, SQLite and LMDB used as logs
	scripts/deps bench
	bench/aof

fuzz: build/fuzz/build.ninja ## every fuzzer for SECONDS=300 each
	ninja -C build/fuzz
	scripts/run-fuzz build/fuzz $(SECONDS)

lint: ## formatting, and clang-tidy over the sources
	scripts/deps lint
	scripts/lint

fmt: ## format the sources
	scripts/deps lint
	git ls-files '*.c' '*.h' | xargs clang-format -i

clean: ## remove build/
	rm -rf build

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

build/release/build.ninja:
	scripts/deps build
	meson setup build/release $(RELEASE)

build/test/build.ninja:
	scripts/deps test
	CC=clang meson setup build/test $(SAN) -Dfuzzing=true

build/tsan/build.ninja:
	scripts/deps test
	CC=clang meson setup build/tsan -Db_sanitize=thread -Db_lundef=false -Dmimalloc=disabled

build/sim/build.ninja:
	scripts/deps test
	meson setup build/sim --buildtype=debugoptimized -Ddebug_checks=true

build/fuzz/build.ninja:
	scripts/deps fuzz
	CC=clang meson setup build/fuzz $(SAN) -Dfuzzing=true -Dc_args=-fsanitize=fuzzer-no-link

.PHONY: release demo test test-thread test-malloc-long sim chaos model bench bench-cluster bench-alloc bench-queue bench-kv bench-aof bench-net fuzz lint fmt clean help
