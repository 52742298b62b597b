/* trace_stores.c - reads what valgrind --tool=lackey --trace-mem=yes writes, from standard input, and adds up the bytes
 * stored into each chunk of one address range.
 *
 *   trace_stores ADDRESS BYTES CHUNK_BYTES
 *
 * A line is " S address,size" for a store or " M address,size" for a load and a store of one instruction; the address
 * is hexadecimal. A store that crosses an end of the range or of a chunk counts where its bytes lie. Prints "lines N",
 * "elsewhere BYTES", and "chunk N BYTES" for each chunk that was stored into. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    uint64_t from = strtoull(argv[1], NULL, 10), bytes = strtoull(argv[2], NULL, 10), chunk = strtoull(argv[3], NULL, 10);
    uint64_t chunks = bytes / chunk, lines = 0, elsewhere = 0, *stored = calloc(chunks, sizeof *stored);
    char line[256];
    if (!stored) return 1;
    while (fgets(line, sizeof line, stdin)) {
        lines++;
        if (line[0] != ' ' || (line[1] != 'S' && line[1] != 'M')) continue;
        char *end;
        uint64_t at = strtoull(line + 3, &end, 16);
        if (*end != ',') return 1;
        uint64_t size = strtoull(end + 1, NULL, 10);
        for (uint64_t i = 0; i < size; i++) {
            if (at + i < from || at + i >= from + bytes) elsewhere++;
            else stored[(at + i - from) / chunk]++;
        }
    }
    printf("lines %" PRIu64 "\nelsewhere %" PRIu64 "\n", lines, elsewhere);
    for (uint64_t i = 0; i < chunks; i++)
        if (stored[i]) printf("chunk %" PRIu64 " %" PRIu64 "\n", i, stored[i]);
    return 0;
}
