// The progress bar and its plain form, with a clock and a width of the test's own.
#include "report/console.h"

#include <algorithm>
#include <sstream>

#include <gtest/gtest.h>

namespace llmfp8 {
namespace {

// A console that writes to a temporary file.
struct Recorder {
  explicit Recorder(bool is_terminal, bool is_quiet = false, int width = 80)
      : file(std::tmpfile()),
        console({.file = file, .is_quiet = is_quiet, .is_terminal = is_terminal, .width = width, .clock = [this] {
                   return now;
                 }}) {}
  ~Recorder() {
    console.finish();
    std::fclose(file);
  }

  std::string written() {
    std::fflush(file);
    const long end = std::ftell(file);
    std::string out(static_cast<std::size_t>(end), '\0');
    std::rewind(file);
    EXPECT_EQ(std::fread(out.data(), 1, out.size(), file), out.size());
    std::fseek(file, 0, SEEK_END);
    return out;
  }

  double now = 100.0;
  std::FILE* file;
  Console console;
};

Progress progress(std::int64_t step) {
  return {.step = step, .total_steps = 200, .loss = 1.23456, .tokens_per_second = 5321.4, .what = "step"};
}

TEST(Console, PlainLinesWithoutATerminal) {
  Recorder recorder(false);
  for (int step = 0; step <= 200; ++step) {
    recorder.console.update(progress(step));
    recorder.now += 0.25;
  }
  recorder.console.line("saved \x1b[2J\r");
  recorder.console.finish();
  std::vector<std::string> lines;
  std::istringstream in(recorder.written());
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  // 50 seconds, one line every ten, and the last step.
  ASSERT_EQ(lines.size(), 7u);
  EXPECT_EQ(lines[0], "step   0/200   0%  loss 1.2346  5321 tokens/s");
  EXPECT_EQ(lines[1], "step  40/200  20%  loss 1.2346  ETA 40s  5321 tokens/s");
  EXPECT_EQ(lines[5], "step 200/200 100%  loss 1.2346  ETA 0s  5321 tokens/s");
  EXPECT_EQ(lines[6], "saved ?[2J?");
  for (const char c : recorder.written()) EXPECT_TRUE(c == '\n' || static_cast<unsigned char>(c) >= 0x20);
}

// A hundred answers under way at once: none is finished for long, and yet half of the work is done.
TEST(Console, BegunStepsCountInPart) {
  Recorder recorder(false);
  recorder.console.update({.step = 0, .total_steps = 200, .work = 0.0, .what = "problem"});
  recorder.now += 30;
  recorder.console.update({.step = 0, .total_steps = 200, .work = 50.0, .what = "problem"});
  recorder.now += 30;
  recorder.console.update({.step = 99, .total_steps = 200, .work = 100.0, .what = "problem"});
  EXPECT_EQ(recorder.written(), "problem   0/200   0%\nproblem   0/200  25%  ETA 1m 30s\nproblem  99/200  50%  ETA 1m 00s\n");
}

TEST(Console, ABarOnATerminal) {
  Recorder recorder(true);
  recorder.console.update(progress(0));
  recorder.now += 0.01;
  recorder.console.update(progress(1));  // too soon to be drawn
  recorder.now += 0.99;
  recorder.console.update(progress(20));
  const std::string clear = "\r\x1b[K";
  EXPECT_EQ(recorder.written(),
            clear + "step   0/200   0% [..............................]  loss 1.2346  5321 tokens/s\r" + clear +
                "step  20/200  10% [##.....................]  loss 1.2346  ETA 9s  5321 tokens/s\r");
  const std::size_t before = recorder.written().size();
  recorder.console.line("step 20: x 1");
  recorder.console.finish();
  recorder.console.finish();
  const std::string bar = "step  20/200  10% [##.....................]  loss 1.2346  ETA 9s  5321 tokens/s\r";
  EXPECT_EQ(recorder.written().substr(before), clear + "step 20: x 1\n" + clear + bar + clear + bar + "\n");
}

TEST(Console, TheLastStepIsAlwaysDrawn) {
  Recorder recorder(true);
  recorder.console.update(progress(0));
  recorder.console.update(progress(200));
  EXPECT_NE(recorder.written().find("200/200 100%"), std::string::npos);
}

TEST(Console, QuietWritesNothing) {
  Recorder recorder(true, true);
  recorder.console.update(progress(0));
  recorder.console.line("x");
  recorder.console.finish();
  EXPECT_EQ(recorder.written(), "");
}

TEST(Console, SinkPrintsALineARecord) {
  Recorder recorder(false);
  ConsoleSink sink(recorder.console, kTrainFp8Names);
  sink.log({.step = 50,
            .time = 0.0,
            .values = {{"Train/TokensPerSecond", 5321.4},
                       {"Train/Loss", 1.25},
                       {"Train/LearningRate", 1.41e-5},
                       {"Train/GradNorm", 0.85123},
                       {"Train/GPU_Memory_MB", 812.0}}});
  sink.log({.step = 50, .time = 0.0, .values = {{"Eval/Loss", 2.0}, {"Eval/Perplexity", 7.389}, {"Eval/Tokens", 1234.0}}});
  sink.log({.step = 50, .time = 0.0, .values = {{"Train/Utilisation", 0.5}}});
  sink.text("recipe", "default");
  EXPECT_EQ(recorder.written(),
            "step 50: loss 1.2500, lr 1.41e-05, grad norm 0.8512, 5321 tokens/s\n"
            "step 50: evaluation loss 2.0000, perplexity 7.39, 1234 tokens\n");
}

TEST(ProgressText, SaysWhatIsKnown) {
  Progress all = progress(20);
  all.useful_share = 0.934;
  all.memory_bytes = 5.25e9;
  EXPECT_EQ(progress_text(all, 3725.0, 0), "step  20/200  10%  loss 1.2346  ETA 1h 02m  5321 tokens/s  93% useful  5.2 GB");
  all.memory_bytes = 812e6;
  EXPECT_EQ(progress_text(all, 3725.0, 0), "step  20/200  10%  loss 1.2346  ETA 1h 02m  5321 tokens/s  93% useful  812 MB");
}

TEST(ProgressText, NeverWiderThanAsked) {
  for (int width = 1; width < 130; ++width) {
    const std::string text = progress_text(progress(20), 3725.0, width);
    EXPECT_LE(static_cast<int>(text.size()), width);
    EXPECT_EQ(text.rfind(std::string("step  20/200  10%").substr(0, width), 0), 0u) << text;
  }
  EXPECT_EQ(progress_text({.step = 7, .what = "evaluation"}, std::numeric_limits<double>::quiet_NaN(), 40),
            "evaluation 7");
}

TEST(DurationText, Forms) {
  EXPECT_EQ(duration_text(0.0), "0s");
  EXPECT_EQ(duration_text(45.2), "45s");
  EXPECT_EQ(duration_text(200.0), "3m 20s");
  EXPECT_EQ(duration_text(7500.0), "2h 05m");
  EXPECT_EQ(duration_text(3 * 86400.0 + 4 * 3600.0), "3d 04h");
  EXPECT_EQ(duration_text(std::numeric_limits<double>::infinity()), "?");
  EXPECT_EQ(duration_text(std::numeric_limits<double>::quiet_NaN()), "?");
  EXPECT_EQ(duration_text(-1.0), "?");
}

}  // namespace
}  // namespace llmfp8
