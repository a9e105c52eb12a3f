// Where NVIDIA's libraries are looked for, in which order, and what is said of one that is missing or broken.
#include <dlfcn.h>

#include <algorithm>
#include <fstream>
#include <map>

#include <gtest/gtest.h>

#include "backend/cuda_module/nvidia_libraries.h"
#include "support/golden.h"

namespace llmfp8::testing {
namespace {

namespace fs = std::filesystem;
using Variables = std::map<std::string, std::string>;

class NvidiaLibraries : public ::testing::Test {
 protected:
  fs::path folder(const std::string& name) const {
    fs::create_directories(root_.path() / name);
    return root_.path() / name;
  }
  // The places below this test's folder: what the machine itself has, apart.
  std::vector<fs::path> places(const fs::path& program, const Variables& variables) const {
    std::vector<fs::path> own;
    for (const fs::path& place : all(program, variables).folders) {
      if (place.string().starts_with(root_.path().string())) own.push_back(place);
    }
    return own;
  }
  NvidiaPlaces all(const fs::path& program, const Variables& variables) const {
    return nvidia_places(program, [&](const char* name) {
      const auto found = variables.find(name);
      return found != variables.end() ? found->second : "";
    });
  }
  TempDir root_;
};

TEST_F(NvidiaLibraries, AreLookedForInThisOrder) {
  const std::string site = "/lib/python3.11/site-packages/nvidia/";
  const std::vector<fs::path> wanted = {
      folder("repo/.venv" + site + "cu" LLMFP8_CUDA_MAJOR "/lib"),
      folder("repo/.venv" + site + "cudnn/lib"),
      folder("repo/.venv" + site + "cublas/lib"),
      folder("repo/.venv" + site + "cuda_nvrtc/lib"),
      folder("repo/build/.venv" + site + "cudnn/lib"),
      folder("venv" + site + "cudnn/lib"),
      folder("conda" + site + "cublas/lib"),
      folder("conda/lib"),
      folder("toolkit/lib64"),
      folder("path/lib64"),
  };
  const std::string root = root_.path().string();
  const Variables variables = {{"VIRTUAL_ENV", root + "/venv"},
                               {"CONDA_PREFIX", root + "/conda"},
                               {"CUDA_HOME", root + "/toolkit"},
                               {"CUDA_PATH", root + "/path"}};
  EXPECT_EQ(places(root_.path() / "repo/build/bin", variables), wanted);
  EXPECT_TRUE(all(root_.path() / "repo/build/bin", variables)
                  .text()
                  .starts_with("on the loader's path, in " + wanted[0].string()));
}

TEST_F(NvidiaLibraries, FoldersThatAreNotThereAreNotNamed) {
  folder("venv/lib/python3.11/site-packages");
  const std::string root = root_.path().string();
  EXPECT_TRUE(places(root_.path() / "bin", {{"VIRTUAL_ENV", root + "/venv"}, {"CUDA_HOME", root + "/no"}}).empty());
  EXPECT_TRUE(places("", {{"VIRTUAL_ENV", ""}, {"CUDA_HOME", "relative"}}).empty());
}

TEST_F(NvidiaLibraries, ForcedFoldersAreTheOnlyOnes) {
  const fs::path a = folder("a"), b = folder("b");
  const std::string forced = a.string() + ":" + b.string() + ":" + (root_.path() / "no").string();
  const NvidiaPlaces found = all(root_.path() / "bin", {{"LLMFP8_CUDA_LIB_DIR", forced}, {"CUDA_HOME", a.string()}});
  EXPECT_EQ(found.folders, (std::vector<fs::path>{a, b}));
  EXPECT_EQ(found.text(), "in LLMFP8_CUDA_LIB_DIR=" + forced);
}

TEST_F(NvidiaLibraries, TheFirstOneThatOpensIsTaken) {
  const fs::path empty = folder("empty"), good = folder("good"), later = folder("later");
  std::ofstream(empty / "libsome.so.1");
  fs::copy_file(LLMFP8_FAKE_MODULE, good / "libsome.so.1");
  fs::copy_file(LLMFP8_FAKE_MODULE, later / "libsome.so.1");
  const NvidiaLibrary found = open_nvidia_library("libsome.so.1", {"forced", {empty, good, later}});
  EXPECT_EQ(found.file, (good / "libsome.so.1").string());
  EXPECT_EQ(found.problem, "");
}

TEST_F(NvidiaLibraries, WhatIsWrongIsSaid) {
  const fs::path empty = folder("empty"), none = folder("none");
  std::ofstream(empty / "libsome.so.1");
  const NvidiaLibrary broken = open_nvidia_library("libsome.so.1", {"", {empty}});
  EXPECT_EQ(broken.file, "");
  EXPECT_TRUE(broken.problem.starts_with("libsome.so.1 does not load: " + (empty / "libsome.so.1").string()))
      << broken.problem;
  EXPECT_EQ(open_nvidia_library("libsome.so.1", {"", {none}}).problem,
            "libsome.so.1 was not found on the loader's path, in " + none.string());
  EXPECT_EQ(open_nvidia_library("libsome.so.1", {"x:y", {}}).problem,
            "libsome.so.1 was not found in LLMFP8_CUDA_LIB_DIR=x:y");
}

TEST_F(NvidiaLibraries, NvrtcFindsItsBuiltinsInAFolderThatTheLoaderDoesNotKnow) {
  const fs::path wheel = folder("wheel");
  fs::copy_file(LLMFP8_FAKE_MODULE, wheel / "libnvrtc.so.99");
  fs::copy_file(LLMFP8_FAKE_MODULE, wheel / "libnvrtc-builtins.so.99.1");
  const auto is_loaded = [&](const char* name) {
    return dlopen((wheel / name).c_str(), RTLD_NOW | RTLD_NOLOAD) != nullptr;
  };
  EXPECT_FALSE(is_loaded("libnvrtc-builtins.so.99.1"));
  EXPECT_EQ(open_nvidia_library("libnvrtc.so.99", {"forced", {wheel}}).problem, "");
  EXPECT_TRUE(is_loaded("libnvrtc-builtins.so.99.1"));
}

TEST_F(NvidiaLibraries, TheLoadersPathComesFirst) {
  const fs::path copy = folder("copy");
  const std::string name = "libm.so.6";
  fs::copy_file(LLMFP8_FAKE_MODULE, copy / name);
  const NvidiaLibrary found = open_nvidia_library(name, {"", {copy}});
  EXPECT_FALSE(found.file.empty());
  EXPECT_NE(found.file, (copy / name).string());
}

}  // namespace
}  // namespace llmfp8::testing
