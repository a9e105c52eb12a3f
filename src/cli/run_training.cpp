#include "cli/run_training.h"

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <memory>

#include "cli/run_config.h"
#include "cli/run_main.h"
#include "cli/wandb_options.h"
#include "core/log.h"
#include "report/hardware_source.h"
#include "report/metric_names.h"
#include "report/tensorboard.h"
#include "report/wandb_sink.h"
#include "train/interrupt.h"
#include "train/trainer.h"

namespace llmfp8 {
namespace {

// The folder below --log_dir: the run's name where it has one, else when it began.
std::string run_name(const RunConfig& config) {
  if (!config.wandb_run_name.empty()) {
    std::string name = config.wandb_run_name;
    for (char& c : name)
      if (c == '/' || c == '\\') c = '_';
    return name == "." || name == ".." ? "run" : name;
  }
  char text[32];
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  std::strftime(text, sizeof(text), "%Y%m%d-%H%M%S", &local);
  return text;
}

void add_sinks(Trainer& trainer, const RunConfig& config, Console& console) {
  std::error_code error;
  std::filesystem::create_directories(config.log_dir, error);
  CHECK(!error, "--log_dir {}: cannot be created ({})", config.log_dir, error.message());
  Metrics& metrics = trainer.metrics();
  const bool is_gpu = trainer.device().device.starts_with("cuda");
  metrics.add(open_hardware_source(is_gpu));
  metrics.add(std::make_unique<ConsoleSink>(console, config.program == Program::train_fp8 ? kTrainFp8Names : kTrainMultiGpuNames));
  // A resumed run goes on in the folder of the one before.
  std::string name = run_name(config);
  const bool continues = trainer.continues_metrics();
  if (continues && config.wandb_run_name.empty()) name = trainer.logger_state().value("tensorboard_folder", name);
  trainer.logger_state()["tensorboard_folder"] = name;
  // First what may fail outside the output folder, so that it stays as it was.
  const std::filesystem::path logs = std::filesystem::path(config.log_dir) / name;
  auto tensorboard = std::make_unique<TensorboardSink>(logs);
  if (continues) {
    tensorboard->forget_from(trainer.steps_done());
    for (const MetricRecord& record : records_of_step(trainer.folder().metrics_file(), trainer.steps_done(), trainer.kept_metrics_bytes()))
      tensorboard->log(record);
  }
  metrics.add(std::move(tensorboard));
  const FileMode mode = continues ? FileMode::append : FileMode::replace;
  metrics.add(std::make_unique<JsonlSink>(trainer.folder().metrics_file(), mode, trainer.steps_done()));
  metrics.add(std::make_unique<SummarySink>(trainer.folder().summary_file()));
  if (config.use_wandb) {  // behind the sink of the file that it reads
    WandbRun wandb = new_wandb_run(config, is_gpu ? 1 : 0);
    if (continues) wandb = continued_wandb_run(trainer.logger_state(), wandb);
    trainer.logger_state()["wandb"] = wandb.to_json();
    WandbOptions options = wandb_options(wandb, trainer.flags(), trainer.folder().path(), logs);
    options.is_interrupted = interrupted;
    metrics.add(std::make_unique<WandbSink>(std::move(options)));
  }
}

// Messages are printed above the progress bar as long as there is one.
class LogAboveBar {
 public:
  explicit LogAboveBar(Console& console) {
    log::set_writer([&console](const std::string& message) { console.print(message); });
  }
  ~LogAboveBar() { log::set_writer(nullptr); }
  LogAboveBar(const LogAboveBar&) = delete;
  LogAboveBar& operator=(const LogAboveBar&) = delete;
};

// Launchers start one process a rank. Each would train on its own and write to the same folder.
void refuse_several_ranks() {
  for (const char* variable : {"WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_SIZE", "SLURM_STEP_NUM_TASKS"}) {
    const char* value = std::getenv(variable);
    CHECK(value == nullptr || std::atoi(value) <= 1, "{}={}: training on several ranks is not built yet; start one process", variable,
          value);
  }
}

int run(Program program, int argc, const char* const* argv) {
  const CommandLine command = parse_command_line(program, argc, argv);
  if (command.print) {
    std::fputs(command.print->c_str(), stdout);
    return 0;
  }
  refuse_several_ranks();
  log::set_quiet(command.config.quiet);
  ConsoleOptions options;
  options.is_quiet = command.config.quiet;
  Console console(options);
  const LogAboveBar log_above_bar(console);
  for (const std::string& warning : command.warnings) log::warning("{}", warning);
  install_interrupt_handlers();  // before there is a folder that a signal could leave behind
  try {
    Trainer trainer(command.config, flags_to_json(command.config), console);
    if (!command.config.dry_run) add_sinks(trainer, command.config, console);
    trainer.run();
  } catch (const Interrupted&) {
    console.finish();
    log::info("stopped before the first step; nothing was saved");
  }
  return interrupted() ? 128 + interrupt_signal() : 0;
}

}  // namespace

int training_main(Program program, int argc, const char* const* argv) {
  return run_main([&] { return run(program, argc, argv); });
}

}  // namespace llmfp8
