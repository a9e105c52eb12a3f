// train_multi_gpu: see cli/run_training.h and --help.
#include "cli/run_training.h"

int main(int argc, char** argv) { return llmfp8::training_main(llmfp8::Program::train_multi_gpu, argc, argv); }
