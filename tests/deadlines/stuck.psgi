use strict;
use warnings;
use Fcntl ':flock';
use POSIX ();
use Time::HiRes;

my $mine = __FILE__;
my %way = (
    loop => sub {
        my $guard = bless [], 'Guard';
        1 while 1;  # loop
    },
    sleep => sub {
        sleep 1000 while 1;  # sleep
    },
    lock => sub {
        open my $one, '<', $mine or die;
        open my $two, '<', $mine or die;
        flock $one, LOCK_EX;
        flock $two, LOCK_EX;  # lock
    },
    c => sub {
        POSIX::pause() while 1;  # c
    },
    pause => sub {
        Time::HiRes::sleep($_[0]);  # pause
    },
    spin => sub {
        my $end = Time::HiRes::time() + $_[0];
        1 while Time::HiRes::time() < $end;  # spin
    },
);
sub Guard::DESTROY { print STDERR "cleaned up after loop\n" }

sub {
    my ($env) = @_;
    my (undef, $name, $seconds) = split '/', $env->{PATH_INFO};
    $SIG{TERM} = 'IGNORE' if $name && $name =~ /^(loop|sleep|lock|c)$/;
    $way{$name}->($seconds) if $name && $way{$name};
    return [200, ['Content-Type' => 'text/plain'], [$$]];
};
