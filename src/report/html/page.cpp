// Puts the page together: the template with the texts, the data, the verdict and the cards.
#include "report/html/page.h"

#include <algorithm>
#include <cmath>

#include <fmt/ranges.h>

#include "core/error.h"
#include "report/comparison.h"
#include "report/console.h"
#include "report/html/html_text.h"
#include "report/html/texts.h"

namespace llmfp8 {
namespace {

std::string run_label(const RunRecord& run) { return fmt::format("<b>{}</b>", escape_html(run.name)); }

std::string times_text(double ratio) { return fmt::format("{:.2f}×", ratio); }

std::string steps_text(const LossComparison& loss) {
  return loss.first_step == loss.last_step
             ? fmt::format("step {}", whole_text(loss.last_step))
             : fmt::format("steps {}–{}", whole_text(loss.first_step), whole_text(loss.last_step));
}

std::string seconds_text(double seconds) { return std::isfinite(seconds) ? duration_text(seconds) : "–"; }

// "fp8 against bf16: 1.08× the speed (13,207 against 12,232 tokens/s), …"
std::string comparison_sentence(const RunRecord& run, const RunRecord& baseline) {
  const Comparison c = compare_runs(run, baseline);
  std::vector<std::string> parts;
  if (c.speed_up) {
    parts.push_back(fmt::format("<b>{}</b> the speed ({} against {} tokens/s)", times_text(*c.speed_up),
                                whole_text(run.tokens_per_second), whole_text(baseline.tokens_per_second)));
  }
  if (c.memory_ratio) {
    parts.push_back(fmt::format("<b>{}</b> the memory ({} against {})", times_text(*c.memory_ratio),
                                bytes_text(run.memory_bytes), bytes_text(baseline.memory_bytes)));
  }
  if (c.loss) {
    parts.push_back(fmt::format("loss <b>{}</b> ({}; {:.4f} against {:.4f}, means of {}, the last 10 %)",
                                signed_text(c.loss->difference()), percent_text(c.loss->relative()), c.loss->mean,
                                c.loss->baseline_mean, steps_text(*c.loss)));
  }
  if (c.eval_loss) {
    parts.push_back(fmt::format("evaluation loss <b>{}</b> ({}; {:.4f} against {:.4f} at {})",
                                signed_text(c.eval_loss->difference()), percent_text(c.eval_loss->relative()),
                                c.eval_loss->mean, c.eval_loss->baseline_mean, steps_text(*c.eval_loss)));
  }
  if (parts.empty()) parts.push_back("nothing in common to compare");
  std::string text =
      fmt::format("<p>{} against {}: {}.</p>", run_label(run), run_label(baseline), fmt::join(parts, ", "));
  std::vector<std::string> caveats;
  if (!c.other_flags.empty()) {
    caveats.push_back(
        fmt::format("they also differ in {}", escape_html(fmt::format("{}", fmt::join(c.other_flags, ", ")))));
  }
  if (run.device != baseline.device) {
    caveats.push_back(
        fmt::format("they ran on different devices ({}; {})", escape_html(run.device), escape_html(baseline.device)));
  }
  if (!caveats.empty())
    text += fmt::format("<p class=\"caveat\">Not precision alone: {}.</p>", fmt::join(caveats, "; "));
  return text;
}

std::string single_sentence(const RunRecord& run) {
  const SeriesPoints* loss = run.find("loss");
  if (loss == nullptr) return "<p>This run has logged no loss yet.</p>";
  std::string text = fmt::format("Loss <b>{} → {}</b> in {} steps", number_text(loss->front().value),
                                 number_text(run.last("loss")), whole_text(static_cast<double>(run.steps_done)));
  if (run.steps_total > run.steps_done) text += fmt::format(" of {}", whole_text(static_cast<double>(run.steps_total)));
  if (std::isfinite(run.tokens)) text += fmt::format(", {} tokens", whole_text(run.tokens));
  if (std::isfinite(run.train_seconds)) text += fmt::format(" in {}", seconds_text(run.train_seconds));
  if (std::isfinite(run.tokens_per_second))
    text += fmt::format(" (<b>{}</b> tokens/s)", whole_text(run.tokens_per_second));
  if (std::isfinite(run.last("eval_loss")))
    text += fmt::format("; evaluation loss <b>{}</b>", number_text(run.last("eval_loss")));
  return fmt::format("<p>{}.</p>", text);
}

// What a reader must know before believing a number: fallbacks, notes, files that were cut off.
std::string remarks_html(std::span<const RunRecord> runs) {
  std::vector<std::pair<std::string, std::vector<std::string>>> remarks;  // what, names of the runs
  const auto add = [&](const std::string& what, const std::string& name) {
    const auto it =
        std::find_if(remarks.begin(), remarks.end(), [&](const auto& remark) { return remark.first == what; });
    if (it == remarks.end()) {
      remarks.push_back({what, {name}});
    } else {
      it->second.push_back(name);
    }
  };
  for (const RunRecord& run : runs) {
    if (!run.fallback.empty()) add(run.fallback, run.name);
    for (const std::string& remark : run.remarks) add(remark, run.name);
    for (const std::string& remark : run.left_out) add(remark, run.name);
  }
  if (remarks.empty()) return "";
  std::string items;
  for (const auto& [what, names] : remarks) {
    items += runs.size() == 1 ? fmt::format("<li>{}</li>", escape_html(what))
                              : fmt::format("<li><b>{}</b>: {}</li>",
                                            escape_html(fmt::format("{}", fmt::join(names, ", "))), escape_html(what));
  }
  return fmt::format("<ul class=\"remarks\" aria-label=\"Remarks\">{}</ul>", items);
}

std::string page_title(std::span<const RunRecord> runs, const std::string& given) {
  if (!given.empty()) return given;
  std::vector<std::string> names;
  for (const RunRecord& run : runs) names.push_back(run.name);
  if (names.size() > 4)
    return fmt::format("{} and {} more runs", fmt::join(names.begin(), names.begin() + 3, ", "), names.size() - 3);
  return fmt::format("{}", fmt::join(names, " · "));
}

// What all runs share is said once, above.
std::string subtitle(std::span<const RunRecord> runs, const PageOptions& options) {
  const auto shared = [&](auto member) {
    const std::string& value = runs.front().*member;
    const bool same = std::all_of(runs.begin(), runs.end(), [&](const RunRecord& run) { return run.*member == value; });
    return same ? value : std::string();
  };
  std::vector<std::string> parts;
  for (const std::string& value : {shared(&RunRecord::model), shared(&RunRecord::device)}) {
    if (!value.empty()) parts.push_back(fmt::format("<span>{}</span>", escape_html(value)));
  }
  parts.push_back(fmt::format("<span>llm-fp8 {}, {}</span>", escape_html(options.version), utc_text(options.made)));
  return fmt::format("{}", fmt::join(parts, " "));
}

// A term of a card. The texts are HTML.
std::string fact(std::string_view term, const std::string& value, const std::string& remark = "") {
  return fmt::format("<div><dt>{}</dt><dd>{}{}</dd></div>", term, value,
                     remark.empty() ? "" : fmt::format(" <small>{}</small>", remark));
}

std::string card_facts(const RunRecord& run, const Comparison* comparison) {
  const bool compared = comparison != nullptr;
  const std::optional<LossComparison> loss = compared && comparison->loss ? comparison->loss : last_tenth(run, "loss");
  std::string html;
  html += fact("Speed", whole_text(run.tokens_per_second) + " tokens/s",
               compared && comparison->speed_up ? times_text(*comparison->speed_up) : "");
  html += fact("Memory", bytes_text(run.memory_bytes),
               compared && comparison->memory_ratio ? times_text(*comparison->memory_ratio) : "");
  if (loss) {
    html += fact("Loss, last 10 %", fmt::format("{:.4f}", loss->mean),
                 compared && comparison->loss ? signed_text(loss->difference()) : steps_text(*loss));
  }
  if (std::isfinite(run.last("eval_loss"))) {
    html += fact("Evaluation loss", fmt::format("{:.4f}", run.last("eval_loss")),
                 compared && comparison->eval_loss ? signed_text(comparison->eval_loss->difference()) : "");
  }
  if (std::isfinite(run.last("accuracy"))) html += fact("Accuracy", number_text(run.last("accuracy")));
  const std::string total = run.steps_total > 0 ? " / " + whole_text(static_cast<double>(run.steps_total)) : "";
  html += fact("Steps", whole_text(static_cast<double>(run.steps_done)) + total);
  html += fact("Training time", seconds_text(run.train_seconds));
  return html;
}

}  // namespace

std::string verdict_html(std::span<const RunRecord> runs, std::size_t baseline) {
  if (runs.size() == 1) return single_sentence(runs[0]) + remarks_html(runs);
  std::string html;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    if (i != baseline) html += comparison_sentence(runs[i], runs[baseline]);
  }
  return html + remarks_html(runs);
}

std::string cards_html(std::span<const RunRecord> runs, std::size_t baseline) {
  std::string html;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const RunRecord& run = runs[i];
    Comparison comparison;
    if (i != baseline) comparison = compare_runs(run, runs[baseline]);
    const bool is_baseline = i == baseline && runs.size() > 1;
    html += fmt::format(
        "<article class=\"card\" aria-labelledby=\"run-{0}\"><h2 id=\"run-{0}\"><i class=\"swatch\" "
        "data-run=\"{0}\"></i>{1}</h2>"
        "<p class=\"chips\"><span>{2}</span><span data-state=\"{3}\">{3}</span>{4}</p><dl>{5}</dl></article>",
        i, escape_html(run.name), escape_html(run.precision.empty() ? "precision not known" : run.precision),
        escape_html(run.state.empty() ? "state not known" : run.state),
        is_baseline ? "<span class=\"mark\">baseline</span>" : "",
        card_facts(run, i == baseline ? nullptr : &comparison));
  }
  return html;
}

std::string charts_html(const nlohmann::ordered_json& data) {
  std::string html;
  for (const auto& chart : data["charts"]) {
    const std::string id = escape_html(chart["id"].get<std::string>()), unit = chart["unit"];
    const std::string title = escape_html(chart["title"].get<std::string>());
    html += fmt::format(
        "<figure class=\"chart\" id=\"chart-{0}\" data-chart=\"{0}\"><figcaption><h3 id=\"title-{0}\">{1}{2}</h3>"
        "<p class=\"readout\" id=\"readout-{0}\"></p></figcaption>"
        "<div class=\"plot\" tabindex=\"0\" role=\"application\" aria-roledescription=\"chart\" "
        "aria-labelledby=\"title-{0}\" "
        "aria-describedby=\"keys\"></div>"
        "<details><summary>Numbers<span class=\"unseen\"> of {1}</span></summary><div class=\"scroll\" tabindex=\"0\" "
        "role=\"region\" aria-label=\"Numbers of {1}\"><table></table></div></details></figure>\n",
        id, title, unit.empty() ? "" : fmt::format(" <small>{}</small>", escape_html(unit)));
  }
  if (html.empty()) html = "<p>No run has logged a value yet.</p>";
  return html;
}

std::string report_page(std::span<const RunRecord> runs, const PageOptions& options, const PlotLibrary& library) {
  CHECK(library.missing.empty(), "report: {}", library.missing);
  CHECK(!runs.empty() && options.baseline < runs.size(), "a report of {} runs, baseline {}", runs.size(),
        options.baseline);
  const nlohmann::ordered_json data = page_data(runs, options.baseline);
  std::string style(library.style);
  style += kPageStyle;
  return fill_template(kPageTemplate, {{"title", escape_html(page_title(runs, options.title))},
                                       {"style", style},
                                       {"subtitle", subtitle(runs, options)},
                                       {"verdict", verdict_html(runs, options.baseline)},
                                       {"cards", cards_html(runs, options.baseline)},
                                       {"charts", charts_html(data)},
                                       {"tables", tables_html(runs)},
                                       {"data", json_for_script(data)},
                                       {"library_license", escape_html(library.license)},
                                       {"library", std::string(library.script)},
                                       {"charts_script", std::string(kChartsScript)},
                                       {"page_script", std::string(kPageScript)}});
}

}  // namespace llmfp8
