#include "postgres_fe.h"
#include "commands.h"
int summary_main(int argc, char **argv) { return 1; }
