#include "train/interrupt.h"

#include <atomic>
#include <csignal>
#include <thread>
#include <utility>

#include <unistd.h>

namespace llmfp8 {
namespace {

// Written by a handler, read by other threads.
std::atomic<int> received = 0;
std::atomic<bool> save_requested = false;
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

extern "C" void on_signal(int signal) {
  if (received.exchange(signal) == 0) return;
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

extern "C" void on_save_request(int) { save_requested = true; }

}  // namespace

// A handler's frame lies below the stack pointer, and oneDNN's f32 kernels for AVX and AVX2 let that point into a buffer of
// the heap: a handler must not run on a thread that computes. Threads inherit what is blocked.
void install_interrupt_handlers() {
  sigset_t handled;
  sigemptyset(&handled);
  for (const auto& [signal, handler] : {std::pair(SIGINT, &on_signal), std::pair(SIGTERM, &on_signal), std::pair(SIGUSR1, &on_save_request)}) {
    std::signal(signal, handler);
    sigaddset(&handled, signal);
  }
  pthread_sigmask(SIG_BLOCK, &handled, nullptr);
  std::thread([handled] {
    pthread_sigmask(SIG_UNBLOCK, &handled, nullptr);
    while (true) pause();
  }).detach();
}

bool interrupted() { return received != 0; }
int interrupt_signal() { return received; }

bool take_save_request() { return save_requested.exchange(false); }

void throw_if_interrupted() {
  if (interrupted()) throw Interrupted();
}

}  // namespace llmfp8
