// Ctrl-C and SIGTERM ask a run to stop after the step in hand; a second Ctrl-C ends the process at once. SIGUSR1 asks
// for a checkpoint, and the run goes on.
#pragma once

#include <exception>

namespace llmfp8 {

// Before any other thread starts: a thread of its own takes these signals, and the caller and all threads that it starts later
// never see them. A program that is started from here begins with them blocked, unless it is told otherwise.
void install_interrupt_handlers();
bool interrupted();
int interrupt_signal();  // 0 where none came
bool take_save_request();  // SIGUSR1 came since the last call

// A run that was asked to stop before there is anything to save. No std::runtime_error: it is not a failure.
class Interrupted : public std::exception {
 public:
  const char* what() const noexcept override { return "stopped by a signal"; }
};
void throw_if_interrupted();

}  // namespace llmfp8
