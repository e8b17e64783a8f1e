/* The prelude of the cffi module: message.h is its cdef as well. */
#include <stdint.h>

#include "message.h"
