// Ctrl-C and SIGTERM ask a run to stop after the step in hand; a second Ctrl-C ends the process at once.
#pragma once

namespace llmfp8 {

void install_interrupt_handlers();
bool interrupted();
int interrupt_signal();  // 0 where none came

}  // namespace llmfp8
