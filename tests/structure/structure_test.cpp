// Holds the whole repository against the rules of docs/architecture.md, and the rules against examples that break them.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "structure/rules.h"
#include "support/golden.h"

namespace llmfp8::structure {
namespace {

using Rule = std::vector<std::string> (*)(const std::string& path, const std::string& text);

// Every violation in the repository, one a line.
std::string violations(Rule rule) {
  std::string all;
  for (const std::string& path : source_files(testing::source_dir())) {
    std::ifstream in(testing::source_dir() / path, std::ios::binary);
    const std::string text(std::istreambuf_iterator<char>(in), {});
    for (const std::string& line : rule(path, text)) all += line + "\n";
  }
  return all;
}

TEST(Structure, ModulesIncludeOnlyWhatStandsToTheirLeft) { EXPECT_EQ(violations(module_order_violations), ""); }

TEST(Structure, VendorHeadersStayInTheirFolders) { EXPECT_EQ(violations(vendor_header_violations), ""); }

TEST(Structure, NoFileNamesOneMachineOrARegistry) { EXPECT_EQ(violations(machine_name_violations), ""); }

TEST(Structure, TheRepositoryIsRead) {
  const std::vector<std::string> files = source_files(testing::source_dir());
  for (const char* path :
       {"src/core/tensor.h", "README.md", "tools/setup.sh", ".ci/run", "tests/structure/rules.cpp"}) {
    EXPECT_NE(std::find(files.begin(), files.end(), path), files.end()) << path;
  }
  EXPECT_EQ(std::find(files.begin(), files.end(), ".git"), files.end());
}

TEST(Rules, ModuleOrder) {
  const auto count = [](const char* path, const char* text) { return module_order_violations(path, text).size(); };
  EXPECT_EQ(count("src/model/linear.cpp", "#include \"fp8/quantizer.h\"\n#include <vector>\n"), 0u);
  EXPECT_EQ(count("src/model/linear.cpp", "#include \"model/linear.h\"\n"), 0u);
  EXPECT_EQ(count("src/model/linear.cpp", "#include \"dist/fsdp.h\"\n"), 1u);  // model and dist do not know each other
  EXPECT_EQ(count("src/hub/gguf.cpp", "#include \"text/tokenizer.h\"\n"), 1u);
  EXPECT_EQ(count("src/core/tensor.h", "  #  include \"train/trainer.h\"\n"), 1u);
  EXPECT_EQ(count("src/core/tensor.h", "#include \"dtype.h\"\n"), 1u);  // headers are named from src/
  EXPECT_EQ(count("src/util/string.h", ""), 1u);                        // no such room
  EXPECT_EQ(count("tests/core/x_test.cpp", "#include \"train/trainer.h\"\n"), 0u);
  EXPECT_EQ(module_order_violations("src/core/a.h", "\n\n#include \"cli/options.h\"\n").at(0),
            "src/core/a.h:3: core may not include cli (cli/options.h)");
}

TEST(Rules, VendorHeaders) {
  const auto count = [](const char* path, const char* text) { return vendor_header_violations(path, text).size(); };
  EXPECT_EQ(count("src/model/linear.cpp", "#include <cuda_runtime.h>\n"), 1u);
  EXPECT_EQ(count("src/backend/ops.h", "#include <cublasLt.h>\n"), 1u);
  EXPECT_EQ(count("src/backend/cpu/gemm.cpp", "#include <cudnn_frontend.h>\n#include \"nccl.h\"\n"), 2u);
  EXPECT_EQ(count("src/backend/cuda/ops.cpp", "#include <transformer_engine/swiglu.h>\n"), 1u);
  EXPECT_EQ(count("src/backend/te/ops.cpp", "#include <transformer_engine/swiglu.h>\n"), 0u);
  EXPECT_EQ(count("src/backend/cuda/gemm.cpp", "#include <cublasLt.h>\n"), 0u);
  EXPECT_EQ(count("src/dist/nccl_communicator.cpp", "#include <nccl.h>\n"), 0u);
}

TEST(Rules, MachineNames) {
  const auto count = [](const std::string& text) { return machine_name_violations("docs/x.md", text).size(); };
  const std::string slash = "/";
  EXPECT_EQ(count("run it in " + slash + "work/main"), 1u);
  EXPECT_EQ(count("\"" + slash + "tmp/x\""), 1u);
  EXPECT_EQ(count("cd " + slash + "root"), 1u);
  EXPECT_EQ(count(std::string("https://pypi.") + "org/simple"), 1u);
  EXPECT_EQ(count("src" + slash + "work/x, ${root}/tmp/x, ../tmp/x, " + slash + "rooted"), 0u);
}

}  // namespace
}  // namespace llmfp8::structure
