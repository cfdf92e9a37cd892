/*
 * harness.h
 *		What the harnesses share.
 */
#ifndef PTRACK_FUZZ_HARNESS_H
#define PTRACK_FUZZ_HARNESS_H

/* Stops the fuzzer, which then keeps the input. */
#define REQUIRE(condition) \
	do { \
		if (!(condition)) \
		{ \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
			abort(); \
		} \
	} while (0)

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif							/* PTRACK_FUZZ_HARNESS_H */
