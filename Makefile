# The commands of the README. CMake and ninja do the work; tools/setup.sh installs what is missing.
SHELL := /bin/bash
JOBS ?= $(shell nproc)
PROGRAMS := train_fp8 train_multi_gpu llm-fp8

.DEFAULT_GOAL := build
# The commands share build/ and .venv; each builds in parallel by itself.
.NOTPARALLEL:
.PHONY: build demo demo-recipes test bench format fuzz asan bundle clean setup-%

build: setup-build
	@cmake --preset release -DLLMFP8_TESTS=OFF --log-level=WARNING >/dev/null
	@cmake --build build --parallel $(JOBS)
	@for program in $(PROGRAMS); do if [ -x build/bin/$$program ]; then ln -sfn build/bin/$$program $$program; fi; done

demo: setup-demo build
	@tools/demo.sh

demo-recipes: setup-demo build
	@tools/demo.sh recipes

test: setup-test
	@cmake --preset release -DLLMFP8_TESTS=ON --log-level=WARNING >/dev/null
	@cmake --build build --parallel $(JOBS)
	@ctest --test-dir build --output-on-failure --no-tests=error --parallel $(JOBS) \
	  --output-junit $(CURDIR)/build/test-results.xml

bench: setup-demo build
	@tools/bench.sh

format: setup-format
	@git ls-files -z '*.h' '*.cpp' '*.cu' '*.cuh' | xargs -0 clang-format -i

# The unit tests under the address and undefined-behaviour sanitizers (no leak check: LeakSanitizer gives up with a fatal
# error in every process in which oneDNN has started OpenMP's threads); tests labelled no_asan run whole programs for minutes.
asan: setup-test
	@cmake --preset asan --log-level=WARNING >/dev/null
	@cmake --build build-asan --parallel $(JOBS)
	@ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 ctest --test-dir build-asan --output-on-failure --no-tests=error \
	  --parallel $(JOBS) --label-exclude no_asan

# Every fuzzer for FUZZ_SECONDS.
fuzz: setup-fuzz
	@cmake --preset fuzz --log-level=WARNING >/dev/null
	@tools/fuzz.sh build-fuzz

# With the CUDA module where a toolkit is found; never with NVIDIA's libraries.
bundle: setup-bundle
	@cmake --preset bundle --log-level=WARNING >/dev/null
	@cmake --build build-bundle --parallel $(JOBS)
	@tools/bundle.sh

clean:
	rm -rf build build-debug build-asan build-bundle build-fuzz dist $(PROGRAMS)

setup-%:
	@tools/setup.sh $*
