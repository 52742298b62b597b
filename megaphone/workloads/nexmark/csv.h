/* csv.h - columns of unsigned integers and of coded texts as lines of text: a, comma, b, newline.
 *
 * Room      the caller gives rows * (sum over columns of the longest value + 1) bytes; nothing is allocated.
 * Texts     are written as they are: who makes the dictionary quotes what needs it.
 * Progress  every call is wait-free and touches only its arguments. */
#ifndef MP_NEXMARK_CSV_H
#define MP_NEXMARK_CSV_H

#include <stdint.h>

/* cdef begin */
typedef struct {
    const void *values;           /* of item_bytes 1, 2, 4 or 8 each, unsigned */
    uint32_t item_bytes;
    uint32_t text_count;          /* 0: the values are numbers; otherwise each is the place of its text */
    const uint32_t *text_offsets; /* text_count + 1 of them */
    const uint8_t *texts;
} mp_csv_column;

/* Write `rows` lines of `count` >= 1 columns. Returns the bytes written, or -EINVAL for a width that is none of these or
 * a code that has no text. */
int64_t mp_csv_format(const mp_csv_column *columns, uint32_t count, uint64_t rows, uint8_t *out);
/* cdef end */

#endif
