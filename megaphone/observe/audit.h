/* audit.h - does a run add up? The laws of hand-over, checked in what shared memory says.
 *
 * Records   each message that is for F or S, each stashed one and what bins have applied, counted once, is what was sent
 *           to F. A slot whose activation is in progress may make the sum too high by the records it has fixed as input:
 *           those in inboxes of the operator that runs there, and those that it has taken out of its heaps. Never too low,
 *           but for post-dated records, which are popped from their bins before they are applied.
 *           Of two inputs both are counted, in the same figures.
 * Bins      resident at the owner and in no message, or on the way and in exactly one, which is for the owner.
 * Maps      configurations are numbered; two slots that have one of the same number have the same. The numbers that are
 *           installed differ by one at most (of the left input: the right one's F goes at its own pace). A bin's owner follows from the maps: a slot gives a bin away when it installs
 *           the configuration that takes it.
 * Odd       of a slot in the middle of F or S some of this is open; those are counted as in between, not as findings.
 * Cost      O(messages log messages + bins × slots). */
#ifndef MP_OBSERVE_AUDIT_H
#define MP_OBSERVE_AUDIT_H

#include "observe/inspect.h"

/* cdef begin */
enum mp_finding_kind {
    MP_FOUND_UNREADABLE = 1,      /* a queue, map or message whose words cannot be true; a: -errno */
    MP_FOUND_OWNER_UNKNOWN = 2,   /* a: the directory's owner, b: the owner that follows from the maps */
    MP_FOUND_NOT_CARRIED = 3,     /* on the way, and no message names it; a: the owner it is for */
    MP_FOUND_CARRIED_TWICE = 4,   /* a: messages that name it */
    MP_FOUND_CARRIED_RESIDENT = 5, /* resident, and a message names it */
    MP_FOUND_CARRIED_ELSEWHERE = 6, /* a: the owner, b: the slot that the message is for */
    MP_FOUND_MAPS_DIFFER = 7,     /* a, b: slots whose configuration of the same number says otherwise */
    MP_FOUND_NUMBERS_APART = 8,   /* a, b: least and greatest number installed: more than one apart */
    MP_FOUND_NO_SLOT = 9,         /* a: the owner, which is no slot */
};

typedef struct mp_finding {
    uint32_t kind, slot, bin, reserved; /* MP_FOUND_*; slot or bin UINT32_MAX where it is of none */
    uint64_t a, b;
} mp_finding;

typedef struct mp_audit {
    uint64_t odd;                 /* bit per slot: an activation is in progress */
    uint64_t in_f, in_s, in_main; /* bits of odd slots: of this operator's F, of its S, of the main program */
    uint64_t in_f2;               /* of the F of its right input, which moves nothing */
    uint64_t applied;             /* records, as the bins' `updates` say; kernels count there */
    uint64_t shown;               /* records, as slots count what S has been shown */
    uint64_t pending;             /* post-dated records in bins */
    /* Records of input on their way, each counted once: */
    uint64_t inbox_f, waiting, ring, outbox, inbox_s, stash;
    uint64_t staged;              /* by main programs, in inboxes of F, not published yet */
    uint64_t fixed;               /* by odd activations of F and S, and staged: how much too high the sum may be */
    uint64_t twice;               /* records seen in a second place */
    uint32_t bins_moving;         /* not resident */
    uint32_t bins_between;        /* of them, and of those named: what an odd slot explains */
    uint32_t number_min, number_max; /* configurations installed, over the slots */
    uint32_t updates_waiting;     /* configurations that some slot knows and has not installed, at most */
    uint32_t findings;            /* how many there are, also beyond `max` */
    uint32_t migrating;           /* 1: a bin is on its way, or a configuration is not installed everywhere */
    uint32_t reserved;
} mp_audit;

/* Audit one stateful operator. Fills at most `max` findings. 0 or -ENOMEM. */
int mp_audit_run(const mp_slot *look, const mp_look_op *op, mp_audit *out, mp_finding *findings, uint32_t max);
/* cdef end */

#endif
