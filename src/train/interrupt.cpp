#include "train/interrupt.h"

#include <csignal>

namespace llmfp8 {
namespace {

volatile std::sig_atomic_t received = 0;
volatile std::sig_atomic_t save_requested = 0;

extern "C" void on_signal(int signal) {
  if (received != 0) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
  received = signal;
}

extern "C" void on_save_request(int) { save_requested = 1; }

}  // namespace

void install_interrupt_handlers() {
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  std::signal(SIGUSR1, on_save_request);
}

bool interrupted() { return received != 0; }
int interrupt_signal() { return received; }

bool take_save_request() {
  const bool is_requested = save_requested != 0;
  save_requested = 0;
  return is_requested;
}

void throw_if_interrupted() {
  if (interrupted()) throw Interrupted();
}

}  // namespace llmfp8
