// The page in a real browser (chromium, without a window): its scripts end without an error, each chart is drawn, nothing is
// wider than a phone, the keyboard works. Skipped, with the reason, where there is no browser or no plotting library.
#include <cstdlib>

#include <sys/wait.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "report/html/html_text.h"
#include "report/html/page.h"
#include "report/run_folders.h"
#include "support/golden.h"

namespace llmfp8 {
namespace {

using testing::FakeRun;
namespace fs = std::filesystem;

std::string browser() {
  for (const char* name : {"chromium", "chromium-browser", "google-chrome"}) {
    if (std::system(fmt::format("command -v {} >/dev/null 2>&1", name).c_str()) == 0) return name;
  }
  return "";
}

std::string read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

struct Loaded {
  std::string dom;      // after the scripts have run
  std::string console;  // what the browser printed
};

Loaded load(const fs::path& folder, const std::string& html) {
  std::ofstream(folder / "page.html") << html;
  // A sandbox needs rights that a container does not give. The profile stays in the test's own folder.
  const std::string command = fmt::format(
      "HOME='{0}' timeout 120 {1} --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage "
      "--user-data-dir='{0}/profile' "
      "--enable-logging=stderr --virtual-time-budget=8000 --window-size=1000,1400 --dump-dom 'file://{0}/page.html' "
      ">'{0}/dom' 2>'{0}/console'",
      folder.string(), browser());
  const int status = std::system(command.c_str());
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << read(folder / "console");
  return {read(folder / "dom"), read(folder / "console")};
}

std::size_t count_of(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++count;
  return count;
}

class Browser : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!plot_library().missing.empty()) GTEST_SKIP() << plot_library().missing;
    if (browser().empty()) GTEST_SKIP() << "no chromium here (Debian package chromium)";
  }

  std::string page(bool several) const {
    std::vector<RunRecord> runs = {read_run(FakeRun{}.write(dir_.path() / "runs" / "bf16"))};
    if (several) {
      runs.push_back(
          read_run(FakeRun{.precision = "fp8 (default)", .loss_offset = 0.1, .name = "</script><b>fp8"}.write(
              dir_.path() / "runs" / "b")));
      runs.push_back(read_run(FakeRun{
          .precision = "fp8 (mxfp8)", .steps = 60, .name = "a-rather-long-name_of_a_run-with-mxfp8-and-more-of-it"}
                                  .write(dir_.path() / "runs" / "c")));
    }
    return report_page(runs, {.title = "", .baseline = 0, .made = 1700000000, .version = "0.1.0"}, plot_library());
  }

  testing::TempDir dir_;
};

TEST_F(Browser, DrawsEveryChartWithoutAnError) {
  for (const bool several : {false, true}) {
    const Loaded loaded = load(dir_.path(), page(several));
    EXPECT_NE(loaded.dom.find("data-report=\"ready\""), std::string::npos);
    EXPECT_EQ(loaded.dom.find("data-errors=\""), std::string::npos);
    EXPECT_EQ(loaded.console.find("CONSOLE"), std::string::npos) << loaded.console;
    // dygraphs puts two canvases into a chart.
    EXPECT_EQ(count_of(loaded.dom, "<canvas"), 2 * count_of(loaded.dom, "class=\"plot\""));
    EXPECT_GE(count_of(loaded.dom, "<canvas"), 12u);
    // The alternative to each curve is there before anybody asks for it.
    EXPECT_EQ(count_of(loaded.dom, "<th scope=\"row\">step 100</th>"), 6u);
  }
}

// The page in a frame of 360 pixels, looked at and worked from outside.
TEST_F(Browser, FitsAPhoneAndObeysTheKeyboard) {
  const std::string script = R"(
    const frame = document.getElementById('f'), told = {};
    frame.onload = () => {
      const page = frame.contentDocument, root = page.documentElement;
      told.width = root.scrollWidth <= 360;
      told.ready = root.dataset.report === 'ready' && !root.dataset.errors;
      const press = (plot, key) => plot.dispatchEvent(new frame.contentWindow.KeyboardEvent('keydown', {key, bubbles: true}));
      const plot = page.querySelector('#chart-loss .plot');
      plot.focus();
      told.focus = page.activeElement === plot;
      press(plot, 'Home');
      press(plot, 'ArrowRight');
      told.keys = page.getElementById('live').textContent.startsWith('step 2: bf16 4.545, ');
      press(plot, 'End');
      told.end = page.getElementById('live').textContent.startsWith('step 100: ');
      page.querySelector('input[name=axis][value=tokens]').click();
      told.tokens = page.querySelector('#readout-loss').textContent.startsWith('50k tokens');
      page.querySelectorAll('.runs button')[1].click();
      told.hides = page.querySelectorAll('#chart-loss thead th').length === 3;
      const slider = page.getElementById('smoothing');
      slider.value = 0;
      slider.dispatchEvent(new frame.contentWindow.Event('input'));
      page.getElementById('log').click();
      page.getElementById('theme').click();
      told.theme = root.dataset.theme === 'dark' || root.dataset.theme === 'light';
      told.clean = !root.dataset.errors && page.querySelectorAll('canvas').length === 12;
      document.body.dataset.told = JSON.stringify(told);
    };)";
  const std::string wrapper = fmt::format(
      "<!doctype html><body><iframe id=\"f\" style=\"width:360px;height:900px;border:0\" "
      "srcdoc=\"{}\"></iframe><script>{}</script>",
      escape_html(page(true)), script);
  const Loaded loaded = load(dir_.path(), wrapper);
  const std::size_t at = loaded.dom.find("data-told=\"");
  ASSERT_NE(at, std::string::npos) << loaded.console;
  const std::string told = loaded.dom.substr(at, loaded.dom.find('>', at) - at);
  EXPECT_EQ(told.find("false"), std::string::npos) << told;
  EXPECT_EQ(count_of(told, "true"), 9u) << told;
}

}  // namespace
}  // namespace llmfp8
