// Programs of a build with CUDA on a machine that lacks some of it: they start, use the CPU or end with one line, and
// take no module of another build. Runs with and without a GPU; a build without CUDA has nothing to open.
#include <cstdio>
#include <regex>
#include <sstream>

#include <gtest/gtest.h>

#include "e2e/workshop.h"

namespace llmfp8::testing {
namespace {

namespace fs = std::filesystem;

#ifdef LLMFP8_FAKE_MODULE

std::vector<std::string> library_names() {
  std::istringstream in(LLMFP8_CUDA_LIBRARIES);
  return {std::istream_iterator<std::string>(in), {}};
}

std::string output_of(const std::string& command) {
  std::string text;
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return text;
  char buffer[4096];
  for (std::size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) text.append(buffer, n);
  pclose(pipe);
  return text;
}

// Libraries that a file cannot be loaded without.
std::vector<std::string> needed_by(const fs::path& file) {
  const std::string text = output_of("readelf -d '" + file.string() + "'");
  static const std::regex pattern(R"(\(NEEDED\)[^\[]*\[([^\]]+)\])");
  std::vector<std::string> names;
  for (std::sregex_iterator at(text.begin(), text.end(), pattern), end; at != end; ++at) names.push_back((*at)[1]);
  return names;
}

bool is_of_cuda(const std::string& name) {
  static const std::regex pattern("^lib(cu|nv).*");
  return std::regex_match(name, pattern);
}

class CudaModule : public ::testing::Test {
 protected:
  CudaModule() {
    shop_.model("llama_tied");
    shop_.text_rows(40);
    for (const char* name : {"fake", "nvidia", "nothing"}) fs::create_directories(shop_.path(name));
    fs::create_symlink(LLMFP8_FAKE_MODULE, shop_.path("fake") / "libllmfp8_cuda.so");
    for (const std::string& name : library_names()) add_library(name);
  }

  // Something that opens: these tests end before anything is called in it.
  void add_library(const std::string& name) { fs::create_symlink(LLMFP8_FAKE_MODULE, shop_.path("nvidia") / name); }
  void remove_library(const std::string& name) { fs::remove(shop_.path("nvidia") / name); }

  // With the real module, or the fake one and what it is asked for; NVIDIA's libraries from this test's folder.
  Finished train(const std::string& device, const std::string& fake = "", const Args& more = {}) {
    std::map<std::string, std::string> environment = {{"LLMFP8_CUDA_LIB_DIR", shop_.path("nvidia").string()}};
    if (!fake.empty()) environment["LLMFP8_LIB_DIR"] = shop_.path("fake").string(), environment["LLMFP8_FAKE"] = fake;
    return train_in(device, environment, more);
  }
  Finished train_in(const std::string& device, const std::map<std::string, std::string>& environment,
                    const Args& more = {}) {
    Args args = {"--device", device, "--max_steps", "1", "--overwrite"};
    args.insert(args.end(), more.begin(), more.end());
    return run_program("train_fp8", shop_.args(args), {.environment = environment});
  }

  void expect_error(const Finished& run, int code, const std::vector<std::string>& wanted) {
    EXPECT_EQ(run.code, code) << run.err;
    ASSERT_EQ(run.errors().size(), 1u) << run.err;
    for (const std::string& part : wanted)
      EXPECT_NE(run.errors()[0].find(part), std::string::npos) << part << " in\n" << run.err;
    EXPECT_FALSE(fs::exists(shop_.output()));
  }

  Workshop shop_;
};

TEST_F(CudaModule, ProgramsNeedNoLibraryOfCuda) {
  for (const char* name : {"train_fp8", "train_multi_gpu", "llm-fp8"}) {
    const std::vector<std::string> needed = needed_by(program(name));
    EXPECT_NE(std::find(needed.begin(), needed.end(), "libc.so.6"), needed.end()) << name << ": readelf is wanted";
    for (const std::string& library : needed) EXPECT_FALSE(is_of_cuda(library)) << name << " needs " << library;
  }
}

TEST_F(CudaModule, WhatItNeedsOfNvidiaIsWhatIsOpenedBeforeIt) {
  std::vector<std::string> names = library_names(), needed;
  for (const std::string& library : needed_by(LLMFP8_CUDA_MODULE)) {
    if (is_of_cuda(library)) needed.push_back(library);
  }
  std::sort(names.begin(), names.end());
  std::sort(needed.begin(), needed.end());
  EXPECT_EQ(needed, names);
}

TEST_F(CudaModule, ExportsItsEntranceAlone) {
  std::istringstream lines(output_of(std::string("nm -D --defined-only '") + LLMFP8_CUDA_MODULE + "'"));
  std::vector<std::string> names;
  for (std::string address, kind, name; lines >> address >> kind >> name;) names.push_back(name);
  EXPECT_EQ(names, std::vector<std::string>{"llmfp8_cuda_module"});
}

TEST_F(CudaModule, MissingLibraryIsNamedAndAutoGoesOnWithTheCpu) {
  for (const std::string& name : library_names()) {
    remove_library(name);
    const std::string text = name + " was not found in LLMFP8_CUDA_LIB_DIR=" + shop_.path("nvidia").string();
    expect_error(train("cuda"), 1, {"--device cuda: ", text});

    const Finished run = train("auto");
    EXPECT_EQ(run.code, 0) << run.err;
    EXPECT_EQ(run.count("device: cpu ("), 1u) << run.err;
    EXPECT_EQ(run.count(text), 1u) << run.err;
    EXPECT_EQ(read_json(shop_.output() / "run.json").at("state"), "finished");
    fs::remove_all(shop_.output());
    add_library(name);
  }
}

TEST_F(CudaModule, MissingModuleIsNamedWithItsPlace) {
  const std::string nothing = shop_.path("nothing").string();
  expect_error(train_in("cuda", {{"LLMFP8_LIB_DIR", nothing}}), 1,
               {"--device cuda: libllmfp8_cuda.so was not found in LLMFP8_LIB_DIR=" + nothing});
}

TEST_F(CudaModule, ModuleOfAnotherBuildIsRefused) {
  const std::string file = (shop_.path("fake") / "libllmfp8_cuda.so").string();
  expect_error(train("cuda", "abi"), 1, {file + " belongs to another build", "its ABI is 2, 1 is wanted"});
  expect_error(train("cuda", "version"), 1, {file + " belongs to another build", "it is of version 0.0.1"});
  expect_error(train("cuda", "interface"), 1,
               {file + " belongs to another build", "its interface is 0123456789abcdef"});
  expect_error(train("cuda", "null"), 1, {file + " belongs to another build", "it is no CUDA module"});
}

TEST_F(CudaModule, FileThatIsNoLibraryIsNamed) {
  write_bytes(shop_.path("nothing") / "libllmfp8_cuda.so", "no library");
  const Finished run = train_in("cuda", {{"LLMFP8_CUDA_LIB_DIR", shop_.path("nvidia").string()},
                                         {"LLMFP8_LIB_DIR", shop_.path("nothing").string()}});
  expect_error(run, 1, {(shop_.path("nothing") / "libllmfp8_cuda.so").string() + " does not load: "});
}

// The module's Error is the program's: run_main tells a usage error from the rest by its type.
TEST_F(CudaModule, ErrorsKeepTheirTypeOnTheWayOut) {
  expect_error(train("cuda", "usage_error"), 2, {"error: thrown in the module"});
}

TEST_F(CudaModule, MessagesGoThroughTheProgramsLog) {
  const Finished run = train("cuda", "says");
  expect_error(run, 1, {"--device cuda: the module found nothing"});
  EXPECT_EQ(run.count("warning: a warning of the module\n"), 1u) << run.err;
  EXPECT_EQ(run.count("a note of the module\n"), 1u) << run.err;
  const Finished quiet = train("cuda", "says", {"--quiet"});
  EXPECT_EQ(quiet.count("warning: a warning of the module\n"), 1u) << quiet.err;
  EXPECT_EQ(quiet.count("a note of the module"), 0u) << quiet.err;
}

// The module of this build and the libraries that it was built with, as a user has them.
TEST_F(CudaModule, DoctorNamesTheFilesThatWereTaken) {
  const Finished run = run_program("llm-fp8", {"doctor"}, {.environment = {{"CUDA_VISIBLE_DEVICES", "-1"}}});
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_TRUE(std::regex_search(run.out, std::regex("cuda +no: no NVIDIA (driver|GPU) was found\n"))) << run.out;
  const auto names = [&](const fs::path& file) {
    return std::regex_search(run.out, std::regex("cuda file +[^\n]*" + file.filename().string() + "\n"));
  };
  EXPECT_TRUE(names(LLMFP8_CUDA_MODULE)) << run.out;
  for (const std::string& name : library_names()) EXPECT_TRUE(names(name)) << name << " in\n" << run.out;
}

#else

TEST(CudaModule, IsNotThere) { GTEST_SKIP() << "this build has no CUDA backend"; }

#endif

}  // namespace
}  // namespace llmfp8::testing
