// Text on its way into a page: escaping, the template, and numbers as a reader wants them. Called by the parts of the page.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace llmfp8 {

// For text between tags and for attribute values in double quotes: & < > " ' are replaced, bytes that are not UTF-8 become
// U+FFFD, control characters (but tab and newline) too.
std::string escape_html(std::string_view text);

// JSON that may stand in a <script>: no '<', '>', '&' or line separator is left in it, so that no text of a run can end
// the element or begin a comment.
std::string json_for_script(const nlohmann::ordered_json& json);

// Replaces each {{name}} by its value. One pass: a value that holds {{…}} stays as it is. Throws Error on a name without
// a value.
std::string fill_template(std::string_view text, const std::map<std::string, std::string, std::less<>>& values);

// "13,207"; "–" for what is not known (NaN).
std::string whole_text(double value);
// Four significant digits, "0.8679", "1.23e-05"; "–" for NaN.
std::string number_text(double value);
// "5.19 MB", "21.4 GB" (10⁶, 10⁹ bytes); "–" for NaN.
std::string bytes_text(double bytes);
// "+0.0123", "−0.0123" with a true minus sign.
std::string signed_text(double value);
// A fraction as "+1.2 %", with a sign.
std::string percent_text(double fraction);
// "2026-01-31 14:05 UTC"; "–" for NaN or what is no date. seconds: since 1970.
std::string utc_text(double seconds);

}  // namespace llmfp8
