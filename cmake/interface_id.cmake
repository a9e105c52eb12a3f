# Writes OUT, a header with a digest of HEADERS (their names and texts) and of COMPILER: the declarations that a program
# and a module share. Run by the build whenever one of them has changed; a digest that stays leaves the file alone.
set(all "${COMPILER}")
foreach(header IN LISTS HEADERS)
  file(SHA256 ${header} digest)
  get_filename_component(name ${header} NAME)
  string(APPEND all " ${name} ${digest}")
endforeach()
string(SHA256 id "${all}")
string(SUBSTRING ${id} 0 16 id)
file(CONFIGURE OUTPUT ${OUT} CONTENT "#pragma once\n#define LLMFP8_INTERFACE_ID \"${id}\"\n")
