#include "train/interrupt.h"

#include <csignal>

namespace llmfp8 {
namespace {

volatile std::sig_atomic_t received = 0;

extern "C" void on_signal(int signal) {
  if (received != 0) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
  received = signal;
}

}  // namespace

void install_interrupt_handlers() {
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
}

bool interrupted() { return received != 0; }
int interrupt_signal() { return received; }

void throw_if_interrupted() {
  if (interrupted()) throw Interrupted();
}

}  // namespace llmfp8
