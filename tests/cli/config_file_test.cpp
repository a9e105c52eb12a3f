// --config FILE in both formats: what it sets, what wins, what is refused.
#include "cli/config_file.h"

#include <fstream>

#include <gtest/gtest.h>

#include "cli/run_config.h"
#include "core/error.h"
#include "support/golden.h"

namespace llmfp8 {
namespace {

class ConfigFile : public ::testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& text) {
    const auto path = folder_.path() / name;
    std::ofstream(path, std::ios::binary) << text;
    return path.string();
  }

  // The message without the folder.
  std::string error_of(const std::string& name, const std::string& text) {
    const std::string path = write(name, text);
    try {
      const std::vector<std::string> args = {"--model_name", "m", "--dataset_name", "d", "--config", path};
      parse_command_line(Program::train_fp8, args);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::usage);
      std::string message = error.what();
      EXPECT_EQ(message.find('\n'), std::string::npos) << message;
      const auto at = message.find(path);
      EXPECT_NE(at, std::string::npos) << message;
      return at == std::string::npos ? message : message.replace(at, path.size() - name.size(), "");
    }
    return "";
  }

  testing::TempDir folder_;
};

RunConfig parse(std::vector<std::string> args) { return parse_command_line(Program::train_fp8, args).config; }

TEST_F(ConfigFile, Yaml) {
  const std::string path =
      write("run.yaml",
            "# a comment\nmodel_name: meta-llama/Llama-3.2-1B\ndataset_name: 'my data # 1'\nbatch_size: 12\n"
            "learning_rate: 2.0e-5\nuse_te: true\nmixed_precision: fp8\nseed: 7\n");
  const RunConfig config = parse({"--seed", "8", "--config", path});
  EXPECT_EQ(config.model_name, "meta-llama/Llama-3.2-1B");
  EXPECT_EQ(config.dataset_name, "my data # 1");
  EXPECT_EQ(config.batch_size, 12);
  EXPECT_EQ(config.eval_batch_size, 12);
  EXPECT_EQ(config.learning_rate, 2e-5);
  EXPECT_TRUE(config.use_te);
  EXPECT_EQ(config.mixed_precision, MixedPrecision::fp8);
  EXPECT_EQ(config.seed, 8);  // the command line wins, although --config stands behind it
  const auto json = flags_to_json(config);
  EXPECT_EQ(json["batch_size"]["from"], "config file");
  EXPECT_EQ(json["seed"]["from"], "command line");
  EXPECT_EQ(json["num_epochs"]["from"], "default");
}

TEST_F(ConfigFile, Toml) {
  const std::string path =
      write("run.toml",
            "# a comment\r\n\r\nmodel_name = \"a, b # c\"  # after it\n  dataset_name = 'C:\\x'\n"
            "num_of_samples = 1_000\nlearning_rate=2e-5\nuse_te = true\n\"output_dir\" = \"a \\\"b\\\"\"\n"
            "split_name = \"my_split\"");
  const RunConfig config = parse({"--config", path, "--no-use_te"});
  EXPECT_EQ(config.model_name, "a, b # c");
  EXPECT_EQ(config.dataset_name, "C:\\x");
  EXPECT_EQ(config.num_of_samples, 1000);
  EXPECT_EQ(config.learning_rate, 2e-5);
  EXPECT_FALSE(config.use_te);
  EXPECT_EQ(config.output_dir, "a \"b\"");
  EXPECT_EQ(config.split_name, "my_split");
}

TEST_F(ConfigFile, Refusals) {
  EXPECT_EQ(error_of("a.yaml", "seed: 1\nbatchsize: 3\n"), "a.yaml:2: unknown key batchsize, did you mean batch_size?");
  EXPECT_EQ(error_of("a.toml", "batchsize = 3\n"), "a.toml:1: unknown key batchsize, did you mean batch_size?");
  EXPECT_EQ(error_of("a.yaml", "qqqqq: 3\n"), "a.yaml:1: unknown key qqqqq");
  EXPECT_EQ(error_of("a.yaml", "batch_size: 0\n"),
            "a.yaml:1: batch_size is \"0\", wanted a whole number from 1 to 1048576");
  EXPECT_EQ(error_of("a.yaml", "use_te: maybe\n"), "a.yaml:1: use_te is \"maybe\", wanted true or false");
  EXPECT_EQ(error_of("a.yaml", "config: b.yaml\n"), "a.yaml:1: config: a config file cannot name another");
  EXPECT_EQ(error_of("a.yaml", "seed: 1\n\nseed: 2\n"), "a.yaml:3: seed stands twice (first in line 1)");
  EXPECT_EQ(error_of("a.toml", "seed = 1\nseed = 2\n"), "a.toml:2: seed stands twice (first in line 1)");
  EXPECT_EQ(error_of("a.yaml", "seed: [1, 2]\n"), "a.yaml:1: seed: wanted one value, not a list, a section or nothing");
  EXPECT_EQ(error_of("a.yaml", "training:\n  seed: 1\n"),
            "a.yaml:1: training: wanted one value, not a list, a section or nothing");
  EXPECT_EQ(error_of("a.yaml", "seed:\n"), "a.yaml:1: seed: wanted one value, not a list, a section or nothing");
  EXPECT_EQ(error_of("a.yaml", "- seed\n"), "a.yaml: wanted lines of the form key: value");
  EXPECT_NE(error_of("a.yaml", "seed: a: b\n").find("not valid YAML"), std::string::npos);
  EXPECT_EQ(error_of("a.yaml", "seed: 1\n---\nseed: 2\n"), "a.yaml: wanted one YAML document, found 2");
  EXPECT_EQ(error_of("a.toml", "[training]\nseed = 1\n"),
            "a.toml:1: wanted lines of the form key = value, not a section");
  EXPECT_EQ(error_of("a.toml", "seed 1\n"), "a.toml:1: wanted a line of the form key = value");
  EXPECT_EQ(error_of("a.toml", "= 1\n"), "a.toml:1: wanted a line of the form key = value");
  EXPECT_EQ(error_of("a.toml", "seed = [1]\n"), "a.toml:1: seed: wanted one value");
  for (const char* line :
       {"seed =\n", "seed = 1 2\n", "log_dir = \"open\n", "log_dir = \"bad \\q\"\n", "log_dir = \"a\" b\n"}) {
    EXPECT_NE(error_of("a.toml", line).find("wanted one number, true, false or a \"string\""), std::string::npos)
        << line;
  }
  EXPECT_EQ(error_of("a.json", "{}"), "--config a.json: wanted a file that ends in .yaml, .yml or .toml");
}

TEST_F(ConfigFile, AnEmptyFileSetsNothing) {
  for (const char* name : {"a.yaml", "a.toml"}) {
    EXPECT_TRUE(read_config_file(write(name, "")).empty());
    EXPECT_TRUE(read_config_file(write(name, "# only a comment\n")).empty());
  }
}

TEST_F(ConfigFile, MissingOrTooLarge) {
  EXPECT_THROW(read_config_file(folder_.path() / "none.yaml"), Error);
  EXPECT_THROW(read_config_file(write("large.toml", std::string((1 << 20) + 1, '#'))), Error);
  EXPECT_THROW(read_config_file(write("deep.yaml", "a: " + std::string(100000, '['))), Error);
}

}  // namespace
}  // namespace llmfp8
