// How a call says what is wrong: a status for the program, and a sentence for people, kept for each thread.
#ifndef HOPPERFORGE_FA3_STATUS_H
#define HOPPERFORGE_FA3_STATUS_H

#include "hopperforge/flash_attention_c.h"

namespace hopperforge::fa3 {

using Status = ::hopperforge_fa3_status;

// Keep the sentence and give the status back, for `return fail(...)`.
__attribute__((format(printf, 2, 3))) Status fail(Status status, const char* format, ...);

// A feature that this profile was built without: `what` it is, and upstream's switch without DISABLE_.
Status trimmed(const char* what, const char* feature);

const char* message();

}  // namespace hopperforge::fa3

// Return early with what is wrong, if anything is.
#define HOPPERFORGE_TRY(expression)                                                                           \
  do {                                                                                                        \
    if (const ::hopperforge_fa3_status status_ = (expression); status_ != HOPPERFORGE_FA3_OK) return status_; \
  } while (0)

#endif
