#include "cli/run_main.h"

#include <csignal>
#include <cstdio>
#include <exception>
#include <new>

#include "core/error.h"
#include "report/text_table.h"

namespace llmfp8 {

int run_main(const std::function<int()>& body) {
  // A file above the limit of `ulimit -f` then is a failed write, which is reported, instead of the end of the process.
  std::signal(SIGXFSZ, SIG_IGN);
  // A message may quote a file's text.
  const auto report = [](const char* message) { std::fprintf(stderr, "error: %s\n", one_line(message).c_str()); };
  try {
    return body();
  } catch (const Error& error) {
    report(error.what());
    return error.kind() == ErrorKind::usage ? 2 : 1;
  } catch (const std::bad_alloc&) {
    report("out of memory");
  } catch (const std::exception& error) {
    report(error.what());
  }
  return 1;
}

}  // namespace llmfp8
