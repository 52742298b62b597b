#include "workloads/nexmark/csv.h"

#include <errno.h>
#include <string.h>

#include "dataflow/hashing.h"

enum { DIGITS_MAX = 20 }; /* of 2^64 - 1 */

static uint8_t *put_number(uint8_t *out, uint64_t value) {
    uint8_t digits[DIGITS_MAX], *first = digits + DIGITS_MAX;
    do *--first = (uint8_t)('0' + value % 10);
    while (value /= 10);
    size_t length = (size_t)(digits + DIGITS_MAX - first);
    memcpy(out, first, length);
    return out + length;
}

int64_t mp_csv_format(const mp_csv_column *columns, uint32_t count, uint64_t rows, uint8_t *out) {
    uint8_t *at = out;
    for (uint32_t c = 0; c < count; c++) {
        uint32_t width = columns[c].item_bytes;
        if (width != 1 && width != 2 && width != 4 && width != 8) return -EINVAL;
    }
    for (uint64_t row = 0; row < rows; row++) {
        for (uint32_t c = 0; c < count; c++) {
            const mp_csv_column *column = &columns[c];
            uint64_t value = mp_key_at(column->values, column->item_bytes, row);
            if (!column->text_count) {
                at = put_number(at, value);
            } else {
                if (value >= column->text_count) return -EINVAL;
                uint32_t from = column->text_offsets[value], length = column->text_offsets[value + 1] - from;
                memcpy(at, column->texts + from, length);
                at += length;
            }
            *at++ = ',';
        }
        at[-1] = '\n';
    }
    return at - out;
}
