# The WAL decoder, compiled by itself and fed with records that some
# supported servers never write, or that are damaged: see c/decoder.c.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PtrackTest;
use Test::More;

run_c_test('decoder');
done_testing();
